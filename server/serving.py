"""Serving: which models are loaded, and whether the server welcomes work."""

from server.auth import Keys
from server.errors import Draining, NotReady, UnknownModel
from server.metrics import Metrics
from server.settings import Settings
from server.translator import Translator


class Serving:
    """What every handler shares; starts empty, is filled by the loader, ends by draining."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.keys = Keys(key.get_secret_value() for key in settings.api_keys)
        self.translators: dict[str, Translator] = {}
        self.progress = "starting"
        self.failure: BaseException | None = None  # why loading ended for good
        self.is_draining = False

    def translator(self, model: str | None = None) -> Translator:
        """Return the translator that serves a request now.

        Args:
            model: its name; None takes the first.

        Raises:
            Draining, NotReady: retry later or elsewhere.
            UnknownModel: names those that are loaded.
        """
        if self.is_draining:
            raise Draining("the server is shutting down; retry on another instance", 1.0)
        if not self.translators:
            raise NotReady(f"the model is not ready: {self.progress}", 1.0)
        name = model or next(iter(self.translators))
        if name not in self.translators:
            known = ", ".join(self.translators)
            raise UnknownModel(f"no model is called {name[:100]!r}; loaded: {known}")
        translator = self.translators[name]
        if not translator.engine.is_healthy:
            raise NotReady("the model is not ready: warming up or recovering", 1.0)
        return translator

    @property
    def status(self) -> str:
        """One of ready, loading, draining, failed."""
        if self.is_draining:
            return "draining"
        engines = [translator.engine for translator in self.translators.values()]
        if self.failure or any(not engine.is_alive for engine in engines):
            return "failed"
        return "ready" if engines and all(engine.is_healthy for engine in engines) else "loading"

    def __repr__(self) -> str:
        return f"<Serving {self.status}, {len(self.translators)} models>"
