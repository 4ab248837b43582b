"""The report: one HTML file about a cohort that opens from disk."""
