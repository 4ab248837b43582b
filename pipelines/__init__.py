"""How the job is run: order of work, executors, resume, command line. No science."""
