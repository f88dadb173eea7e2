"""The main program: `tritonserver` as our launchers start it."""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
from collections.abc import Sequence
from pathlib import Path

from tuner.core.lean import spare_client


def main(program: str, arguments: Sequence[str]) -> None:
    """Run the server until it is stopped.

    Args:
        program: The path of the executable; the control file is beside it.
        arguments: The command line arguments.
    """
    spare_client()
    from tuner.testing.fake.options import parse_options  # noqa: PLC0415 (what follows imports the protocol)
    from tuner.testing.fake.server import FakeTriton  # noqa: PLC0415 (the same)

    options = parse_options(program, arguments)

    async def serve() -> int:
        return await FakeTriton(Path(program), options).run()

    # `select` has time-outs in us; epoll's are rounded up to ms.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    asyncio.set_event_loop(loop)
    code = loop.run_until_complete(serve())
    sys.stdout.flush()
    # Exit at once, so that hanging threads do not delay the exit.
    os._exit(code)
