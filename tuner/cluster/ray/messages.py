"""What the process of a run and the driver, its process that uses Ray, tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.cluster.host_changes import HostChange
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slots import Host, HostFacts, Slot


@dataclass(frozen=True)
class Patience:
    """How long the parts of a cluster may take, in seconds.

    Attributes:
        connect_s: Until the driver is connected to the cluster.
        probe_s: Until a node has told its versions.
        place_s: Until Ray has started the actor of a slot.
        open_s: Until a slot is open; its image may have to be pulled.
        settle_s: That the first host waits for others before the run begins without them.
        silence_s: That an actor may be silent. An actor that hears nothing from its driver for twice as long ends.
        pause_s: Until a lost slot is tried again; each loss doubles it.
        longest_pause_s: The longest pause.
        close_s: Until all work has ended when the run ends.
    """

    connect_s: float = 45.0
    probe_s: float = 60.0
    place_s: float = 60.0
    open_s: float = 1800.0
    settle_s: float = 30.0
    silence_s: float = 30.0
    pause_s: float = 5.0
    longest_pause_s: float = 60.0
    close_s: float = 8.0


@dataclass(frozen=True)
class Start:
    """To the driver: connect, and open slots.

    Attributes:
        address: The address of the cluster; None: Ray finds it.
        recipe: What slots are opened by.
        most_slots: The most slots; None: all.
        mixed: Whether hosts that differ from the reference are used, too.
        reference: The facts of the reference host, if it is known already.
        patience: Time limits.
        input_data: The contents of the file of input data for requests; None: they are made up.
    """

    address: str | None
    recipe: SlotRecipe
    most_slots: int | None
    mixed: bool
    reference: HostFacts | None
    patience: Patience
    input_data: bytes | None = None


@dataclass(frozen=True)
class Run:
    """To the driver: carry out a piece of work.

    Attributes:
        number: The number of the piece.
        slot: The name of its slot.
        work: The pickled work. It may hold secrets.
    """

    number: int
    slot: str
    work: bytes


@dataclass(frozen=True)
class Drain:
    """To the driver: give a host up when its work has ended."""

    host: str


@dataclass(frozen=True)
class Close:
    """To the driver: end all work, and then itself."""


@dataclass(frozen=True)
class Connected:
    """From the driver: it is connected to the cluster."""


@dataclass(frozen=True)
class Failed:
    """From the driver: it cannot go on. `text` is one line for the user."""

    text: str


@dataclass(frozen=True)
class Changed:
    """From the driver: something happened to a host."""

    change: HostChange


@dataclass(frozen=True)
class Note:
    """From the driver: one line for the user."""

    text: str


@dataclass(frozen=True)
class Ready:
    """From the driver: the run may begin."""


@dataclass(frozen=True)
class Joined:
    """From the driver: a slot may be given work. `host` has all its slots that joined so far."""

    host: Host
    slot: Slot


@dataclass(frozen=True)
class Lost:
    """From the driver: a slot is lost; perhaps it joins again."""

    slot: str


@dataclass(frozen=True)
class Progress:
    """From the driver: the progress of a piece of work.

    Attributes:
        number: The number of the piece.
        began: Whether a load level began; else it was measured.
        what: The pickled load or operating point.
    """

    number: int
    began: bool
    what: bytes


@dataclass(frozen=True)
class Done:
    """From the driver: a piece of work has ended.

    Attributes:
        number: The number of the piece.
        outcome: The pickled outcome; None: `error`.
        error: The pickled exception; None: the slot was lost.
        lost: Why the slot was lost, in one line.
        files: The files of the launch, by name.
    """

    number: int
    outcome: bytes | None = None
    error: bytes | None = None
    lost: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
