"""The apps of a running node: started in their order, stopped in the opposite one.

What an app does wrong costs a sentence and a line in the log, never the node; only a LocalError, as a port in
use, is the operator's business and stops the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from meshnet.errors import LocalError
from meshnet.node.api import app_routes
from meshnet.node.app import IAppService, Json, MeshNode, Route
from meshnet.node.config import Settings
from meshnet.node.dropins import sentence

_log = Logger()


class Apps:
    """One per node. `apps` are objects that provide IApp; `running` holds their services by name."""

    def __init__(self, apps: Sequence[Any]) -> None:
        self._apps = apps
        self.running: dict[str, IAppService] = {}

    async def start(
        self, node: MeshNode, settings: Settings, routes: dict[str, Route], note: Callable[[str], None]
    ) -> None:
        """Starts all and adds their control routes; `note` is told, in a sentence, of one that does not
        start. Raises LocalError."""
        for app in self._apps:
            try:
                service = app.make_service(node, settings.apps.get(app.name) or app.settings())
                added = app_routes(app.name, service.routes())
                await maybeDeferred(service.startService)
            except LocalError:
                raise
            except Exception as error:  # a stranger's code
                note(f"App {app.name} did not start: {sentence(error)}")
                _log.failure("app {name} did not start", name=app.name)
                continue
            self.running[app.name] = service
            routes.update(added)

    async def stop(self) -> None:
        """Stops those that run, last first; one that fails does not keep the others from it."""
        services, self.running = self.running, {}
        for name, service in reversed(services.items()):
            try:
                await maybeDeferred(service.stopService)
            except Exception:  # a stranger's code
                _log.failure("app {name} did not stop cleanly", name=name)

    def status(self) -> dict[str, Json]:
        """What each says of itself, by name."""
        return {name: self._status(name, service) for name, service in self.running.items()}

    @staticmethod
    def _status(name: str, service: IAppService) -> Json:
        try:
            return dict(service.status())
        except Exception as error:  # a stranger's code
            _log.failure("the status of app {name} failed", name=name)
            return {"error": sentence(error)}
