"""The program: an application at an address, until a signal ends it."""

import asyncio
import contextlib
import ipaddress
import logging
import signal

import uvicorn

from recbole_hllm.errors import ConfigError
from recbole_hllm.serving.service.app import create_app
from recbole_hllm.serving.service.refusal import Refusal
from recbole_hllm.serving.service.service import Service

_LOG = logging.getLogger(__name__)
# Connections at once, and seconds that requests have to end when the service ends.
_CONNECTIONS, _SECONDS = 1000, 30
# Seconds that a connection waits for its next request: longer than proxies keep one, so that it is they who close it.
_IDLE = 75


def run(service: Service, host: str, port: int, token: str | None = None) -> None:
    """Serves until SIGTERM or SIGINT; requests that are being answered are answered. SIGHUP reloads the export.

    Raises:
        ConfigError: the address is in use, or not this machine's.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config = uvicorn.Config(
        create_app(service, token, is_loopback(host)), host=host, port=port, log_config=None, access_log=False,
        server_header=False, limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=_SECONDS,
        timeout_keep_alive=_IDLE, ws="none", lifespan="on",
    )  # fmt: skip
    server = uvicorn.Server(config)
    try:
        asyncio.run(_serve(server, service))
    except SystemExit as error:  # of uvicorn, which has said why in the log
        raise ConfigError(f"serve: cannot listen at {host}, port {port}; name others: --host, --port") from error


def is_loopback(host: str) -> bool:
    """Whether an address is of its own machine, and no other one reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(server: uvicorn.Server, service: Service) -> None:
    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reloaded(service))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if hasattr(signal, "SIGHUP"):  # Windows has none
        with contextlib.suppress(NotImplementedError, RuntimeError):  # nor have other threads
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    await server.serve()


async def _reloaded(service: Service) -> None:
    """Reloads; the log says what is wrong."""
    try:
        await service.reload()
    except Refusal as refusal:
        _LOG.error(refusal.message)
