"""The machine a run is told to use: ``--on`` read into typed settings. Nothing is started here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from ccrl_wsi.config_files import config_names, find_config
from ccrl_wsi.errors import ConfigError

LEAST_MARGIN_MINUTES = 3
"""Between the end of a worker and that of its job; a partition should be done in that time."""

Count = Annotated[int, Field(ge=1)]
Memory = Annotated[
    str, Field(pattern=r"^\d+(\.\d+)? ?([kKMGT]i?)?B$", description="For example 16 GB.")
]
Address = Annotated[str, Field(pattern=r"^(tcp|tls)://\S+:\d+$")]


class _Machine(BaseModel):
    """Immutable; a misspelt key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Dashboard = Annotated[
    str | None,
    Field(
        pattern=r"^[^:\s]*:\d+$",
        description="Address of Dask's dashboard, such as 127.0.0.1:8787; absent: none. "
        "Whoever reaches it sees paths and settings.",
    ),
]


class SerialMachine(_Machine):
    """The calling process, one partition after the other: the reference."""

    kind: Literal["serial"] = "serial"


class LocalMachine(_Machine):
    """Dask workers on this computer, bound to loopback."""

    kind: Literal["local"] = "local"
    workers: Count | None = Field(
        None, description="Processes; absent: one per usable core with memory enough."
    )
    threads: Count = Field(1, description="Partitions a process works on at once.")
    memory_limit: Memory | Literal["auto"] = Field("auto", description="Of one process.")
    dashboard: Dashboard = None


class GpuMachine(_Machine):
    """One Dask worker per GPU of this computer, each announcing the resource ``GPU=1``."""

    kind: Literal["gpu"] = "gpu"
    gpus: Count | None = Field(None, description="GPUs to use; absent: all that are visible.")
    threads: Count = Field(
        2, description="Partitions a process works on at once; 2: one begins while another ends."
    )
    memory_limit: Memory | Literal["auto"] = Field("auto", description="Of one process.")
    dashboard: Dashboard = None


class SlurmMachine(_Machine):
    """Dask workers as SLURM jobs, started and ended with the work.

    ``cores`` is also the number of partitions a job works on at once, shared by its ``processes``;
    with a GPU it is one, which has all cores.
    Keys from ``cores`` to ``job_script_prologue`` are those of ``dask_jobqueue.SLURMCluster``.
    """

    kind: Literal["slurm"] = "slurm"
    cores: Count
    memory: Memory
    processes: Count = 1
    account: str | None = None
    queue: str | None = None
    walltime: str = Field("04:00:00", pattern=r"^(\d+-)?\d{1,3}:\d{2}:\d{2}$")
    interface: str | None = Field(None, description="Network between nodes, for example ib0.")
    local_directory: str | None = Field(None, description="Scratch folder of a worker.")
    job_extra_directives: tuple[str, ...] = ()
    job_script_prologue: tuple[str, ...] = ()
    gpu: bool = Field(
        False, description="Each job has a GPU: its worker announces GPU=1. Needs `processes: 1`."
    )
    tls: bool = Field(
        False, description="Encrypt everything between nodes, with keys made for this run."
    )
    shared_temp_directory: str | None = Field(
        None, description="Where nodes find the keys of `tls`; absent: the current folder."
    )
    dashboard: Dashboard = None
    minimum_jobs: int = Field(1, ge=0)
    maximum_jobs: Count = 8

    @field_validator("walltime", mode="before")
    @classmethod
    def _walltime_is_text(cls, value: Any) -> Any:
        # YAML reads 12:00:00 without quotes as the number 43200.
        if not isinstance(value, str):
            raise ValueError('write the time in quotes, such as "12:00:00"')
        return value

    @model_validator(mode="after")
    def _minimum_within_maximum(self) -> SlurmMachine:
        if self.minimum_jobs > self.maximum_jobs:
            raise ValueError("minimum_jobs is larger than maximum_jobs")
        return self

    @model_validator(mode="after")
    def _processes_fit(self) -> SlurmMachine:
        if self.gpu and self.processes > 1:
            raise ValueError(
                f"gpu: true with processes: {self.processes} would give each process the whole "
                "GPU; set processes: 1, and maximum_jobs for as many GPUs as you want at once"
            )
        if self.processes > self.cores:
            raise ValueError("processes is larger than cores; each needs one")
        return self

    @property
    def partitions_at_once(self) -> int:
        """Of one job."""
        return 1 if self.gpu else self.cores // self.processes * self.processes

    def cluster_options(self) -> dict[str, Any]:
        """Keyword arguments for ``dask_jobqueue.SLURMCluster``; what is not given is left out."""
        own = {"kind", "gpu", "tls", "dashboard", "minimum_jobs", "maximum_jobs"}
        given = self.model_dump(exclude=own, exclude_none=True)
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
        # Nodes must reach the scheduler; its dashboard stays on this computer unless told.
        options["scheduler_options"] = {
            "dashboard": self.dashboard is not None,
            "dashboard_address": self.dashboard or "127.0.0.1:0",
        }
        options["worker_extra_args"] = [*self._lifetime(), *self._resources()]
        if self.tls:
            options["security"] = True
        return options

    def _resources(self) -> list[str]:
        return ["--resources", "GPU=1"] if self.gpu else []

    def _lifetime(self) -> list[str]:
        """Workers hand their work on before the job's time is over, not all at the same moment."""
        total = _minutes(self.walltime)
        margin = max(LEAST_MARGIN_MINUTES, total // 20)
        if total < 3 * margin:
            return []
        return ["--lifetime", f"{total - 2 * margin}m", "--lifetime-stagger", f"{margin}m"]


class AddressMachine(_Machine):
    """A Dask scheduler that runs already."""

    kind: Literal["address"] = "address"
    address: Address
    tls_ca_file: Path | None = Field(
        None, description="Certificate that scheduler and workers trust."
    )
    tls_cert: Path | None = Field(None, description="Certificate of this client.")
    tls_key: Path | None = Field(None, description="Its key; absent: in the same file.")

    def tls_options(self) -> dict[str, str]:
        """Keyword arguments for ``distributed.Security``; empty where no file is named."""
        named = {
            "tls_ca_file": self.tls_ca_file,
            "tls_client_cert": self.tls_cert,
            "tls_client_key": self.tls_key,
        }
        return {name: str(path.expanduser()) for name, path in named.items() if path}


MachineSettings: TypeAlias = (
    SerialMachine | LocalMachine | GpuMachine | SlurmMachine | AddressMachine
)

_PARSER: TypeAdapter[MachineSettings] = TypeAdapter(
    Annotated[MachineSettings, Field(discriminator="kind")]
)


def load_machine(on: str) -> MachineSettings:
    """What ``--on`` asks for.

    Parameters
    ----------
    on
        A name in ``configs/machine`` (``local``, ``serial``, ``gpu``, ``slurm``), a YAML file, or
        the address of a running scheduler.

    Raises
    ------
    ConfigError
        If there is no such file, or a key or value in it does not fit.
    """
    if "://" in on:
        return _parse({"kind": "address", "address": on}, on)
    path = Path(on)
    is_own_file = path.name != on or (bool(path.suffix) and path.is_file())
    try:
        file = find_config(on if is_own_file else f"machine/{on}")
    except ConfigError:
        raise ConfigError(
            f"--on {on}: there is no such machine. Choose {', '.join(_machine_names())}, a YAML "
            "file with `kind:`, or the address of a Dask scheduler such as tcp://host:8786."
        ) from None
    return _parse(_read(file), str(file))


def _machine_names() -> list[str]:
    return [n.removeprefix("machine/") for n in config_names() if n.startswith("machine/")]


def _minutes(walltime: str) -> int:
    days, _, clock = walltime.rpartition("-")
    hours, minutes, _ = map(int, clock.split(":"))
    return (int(days or 0) * 24 + hours) * 60 + minutes


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the machine file {file}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None


def _parse(tree: Any, origin: str) -> MachineSettings:
    if not isinstance(tree, dict) or "kind" not in tree:
        raise ConfigError(
            f"{origin} does not describe a machine. Begin it with `kind:` and one of "
            "serial, local, gpu, slurm, address."
        )
    try:
        return _PARSER.validate_python(tree)
    except ValidationError as error:
        problems = [_sentence(dict(problem)) for problem in error.errors()]
        raise ConfigError(f"{origin}: {' '.join(problems)}") from None


def _sentence(problem: dict[str, Any]) -> str:
    # The first part of a place is the kind, which the message's reader knows.
    place = ".".join(str(part) for part in problem["loc"][1:]) or "kind"
    if problem["type"] == "extra_forbidden":
        return f"{place}: no such key for this kind of machine."
    if problem["type"] == "value_error" and len(problem["loc"]) == 1:
        return f"{problem['msg'].removeprefix('Value error, ')}."  # Of several keys.
    if place == "address":
        return f"{problem['input']!r} is not an address such as tcp://host:8786 or tls://host:8786."
    return f"{place}: {problem['msg']} (got {problem['input']!r})."
