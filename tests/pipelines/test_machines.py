"""`--on`: every way to name a machine, and every way to get it wrong."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from pydantic import ValidationError

from ccrl_wsi.errors import ConfigError
from pipelines import dask_clusters
from pipelines.machines import (
    AddressMachine,
    GpuMachine,
    LocalMachine,
    SerialMachine,
    SlurmMachine,
    load_machine,
)


@pytest.fixture
def machine_file(tmp_path):
    def write(text: str) -> str:
        file = tmp_path / "machine.yaml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return write


@pytest.mark.parametrize(
    ("on", "kind"),
    [("serial", SerialMachine), ("local", LocalMachine), ("gpu", GpuMachine)]
    + [("slurm", SlurmMachine), ("slurm.yaml", SlurmMachine), ("machine/slurm", SlurmMachine)]
    + [("configs/machine/slurm.yaml", SlurmMachine)],
)
def test_a_bundled_machine_is_found_by_name_from_anywhere(on, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_machine(on), kind)


@pytest.mark.parametrize("on", ["tcp://10.0.0.1:8786", "tls://head-node:8786"])
def test_an_address_is_a_running_scheduler(on):
    assert load_machine(on) == AddressMachine(address=on)


def test_a_file_sets_its_keys_and_leaves_the_rest(machine_file):
    machine = load_machine(machine_file("kind: local\nworkers: 3\nmemory_limit: 4 GiB\n"))
    assert machine == LocalMachine(workers=3, threads=1, memory_limit="4 GiB")


def test_a_file_of_the_user_is_found_by_its_bare_name(machine_file, tmp_path, monkeypatch):
    machine_file("kind: local\nworkers: 5\n")
    monkeypatch.chdir(tmp_path)
    assert load_machine("machine.yaml") == LocalMachine(workers=5)


def test_a_folder_called_local_does_not_hide_the_machine(tmp_path, monkeypatch):
    (tmp_path / "local").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_machine("local") == LocalMachine()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: local\nworker: 3\n", "worker: no such key"),
        ("kind: local\nworkers: 0\n", "workers: .*greater than or equal to 1"),
        ("kind: local\nmemory_limit: lots\n", "memory_limit"),
        ("kind: serial\nworkers: 2\n", "workers: no such key"),
        ("kind: abacus\n", "kind: .*abacus"),
        ("kind: slurm\ncores: 4\n", "memory: Field required"),
        ("kind: slurm\ncores: 4\nmemory: 8 GB\nwalltime: 12:00:00\n", "in quotes"),
        ("kind: slurm\ncores: 4\nmemory: 8 GB\nminimum_jobs: 9\n", "minimum_jobs is larger"),
        (
            "kind: slurm\ncores: 4\nmemory: 8 GB\nprocesses: 2\ngpu: true\n",
            "yaml: gpu: true with .*set processes: 1,",
        ),
        ("kind: slurm\ncores: 4\nmemory: 8 GB\nprocesses: 5\n", "processes is larger than cores"),
        ("kind: address\naddress: localhost:8786\n", "is not an address such as"),
        ("workers: 3\n", "Begin it with `kind:`"),
        ("- kind\n", "Begin it with `kind:`"),
        ("kind: [\n", "not valid YAML"),
        ("", "Begin it with `kind:`"),
    ],
)
def test_a_wrong_file_is_one_error_that_names_file_and_key(text, message, machine_file):
    file = machine_file(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_machine(file)
    assert "machine.yaml" in str(caught.value)


@pytest.mark.parametrize("on", ["tcp://", "http://host:80", "tcp://host"])
def test_a_wrong_address_is_answered_with_the_right_form(on):
    with pytest.raises(ConfigError, match="tcp://host:8786"):
        load_machine(on)


@pytest.mark.parametrize("on", ["cluster", "nowhere/cluster.yaml", ""])
def test_an_unknown_machine_is_answered_with_the_known_ones(on):
    known = r"Choose gpu, local, serial, slurm, a YAML file .* tcp://host:8786\.$"
    with pytest.raises(ConfigError, match=known):
        load_machine(on)


def test_a_machine_cannot_be_changed():
    with pytest.raises(ValidationError):
        LocalMachine().workers = 2


def test_slurm_options_are_what_slurmcluster_takes():
    dask_jobqueue = pytest.importorskip("dask_jobqueue")
    machine = SlurmMachine(
        cores=2,
        memory="4 GB",
        account="lab",
        queue="gpu",
        gpu=True,
        job_extra_directives=("--gres=gpu:1",),
    )
    with dask_jobqueue.SLURMCluster(**machine.cluster_options()) as cluster:
        text = cluster.job_script()
        port = cluster.scheduler.http_server.port
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"http://127.0.0.1:{port}/status")
    for line in ("-A lab", "-p gpu", "--gres=gpu:1", "-t 04:00:00", "--resources GPU=1"):
        assert line in text


@pytest.mark.parametrize(
    ("walltime", "lifetime", "stagger"),
    [("04:00:00", "216m", "12m"), ("1-00:00:00", "1296m", "72m"), ("00:15:00", "9m", "3m")],
)
def test_workers_end_before_their_job_does(walltime, lifetime, stagger):
    options = SlurmMachine(cores=1, memory="1 GB", walltime=walltime).cluster_options()
    wanted = ["--lifetime", lifetime, "--lifetime-stagger", stagger]
    assert options["worker_extra_args"] == wanted


def test_a_job_of_minutes_has_no_lifetime():
    options = SlurmMachine(cores=1, memory="1 GB", walltime="00:05:00").cluster_options()
    assert options["worker_extra_args"] == []


def test_tls_files_reach_dask(machine_file):
    machine = load_machine(
        machine_file(
            "kind: address\naddress: tls://head:8786\ntls_ca_file: ca.pem\ntls_cert: me.pem"
        )
    )
    assert machine.tls_options() == {"tls_ca_file": "ca.pem", "tls_client_cert": "me.pem"}


def test_a_dashboard_needs_an_address(machine_file):
    assert load_machine(machine_file("kind: local\ndashboard: 127.0.0.1:8787")).dashboard
    with pytest.raises(ConfigError, match="dashboard"):
        load_machine(machine_file("kind: local\ndashboard: yes please"))


@pytest.mark.parametrize(
    ("cores", "at_once", "threads"), [(8, 8, 1), (8, 2, 4), (8, 3, 2), (2, 5, 1)]
)
def test_libraries_share_the_cores_that_workers_leave(monkeypatch, cores, at_once, threads):
    monkeypatch.setattr(dask_clusters, "cpu_count", lambda: cores)

    told = dask_clusters.library_threads(at_once)

    assert {told[name] for name in dask_clusters.ONE_THREAD} == {str(threads)}
