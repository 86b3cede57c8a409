"""Serving: which models are loaded, which of them a request gets, and whether work is welcome."""

from server.auth import Keys
from server.errors import Draining, NotReady, UnknownModel, UnsupportedLanguage
from server.file_store import FileStore
from server.metrics import Metrics
from server.settings import Settings
from server.text.languages import Detection, LanguageDetector, english_name
from server.translator import Translator

_LISTED = 40  # languages in a message; /languages has them all


class Serving:
    """What every handler shares; starts empty, is filled by the loader, ends by draining."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.keys = Keys(key.get_secret_value() for key in settings.api_keys)
        self.translators: dict[str, Translator] = {}  # by name, in the order of --model
        self.detector: LanguageDetector | None = None  # until it is loaded
        self.awaited: list[str] = []  # names of what is still to be loaded, the next one first
        self.progress = "starting"
        self.failure: BaseException | None = None  # why loading ended for good
        self.is_draining = False
        self.listing: bytes | None = None  # what /languages answers, once it is known
        self.files = FileStore(settings.max_file_store_bytes)
        self.billed_characters = 0  # since the start, by DeepL's way to count

    # -- which model -------------------------------------------------------------------------

    def translator(self, model: str | None = None) -> Translator:
        """Return the translator that serves a request now.

        Args:
            model: its name; None takes the first.

        Raises:
            Draining, NotReady: retry later or elsewhere.
            UnknownModel: names those that are loaded.
        """
        return _healthy(self.candidates(model)[0])

    def for_pair(self, source: str, target: str, model: str | None = None) -> Translator:
        """Return the first translator that knows a pair of languages.

        Args:
            source: a language code; `auto` has been replaced by what was detected.
            model: the only one to consider.

        Raises:
            UnsupportedLanguage: says what could be asked for instead.
            Draining, NotReady, UnknownModel: as `translator`.
        """
        candidates = self.candidates(model)
        for translator in candidates:
            if translator.covers(source, target):
                return _healthy(translator)
        self._wait_for_others(model)
        raise _refusal(candidates, source, target)

    def detect(
        self, text: str, target: str | None = None, model: str | None = None
    ) -> list[Detection]:
        """Return languages by how likely `text` is in them, best first.

        Args:
            target: consider only what can be translated to it, and itself, so that the answer can
                be served.
            model: consider only this model's languages.

        Raises:
            UnsupportedLanguage: there is nothing to choose from.
        """
        candidates = self.candidates(model)
        self._wait_for_others(model)
        if target is None:
            among = set().union(*(translator.languages for translator in candidates))
        else:
            covered = [(t, s) for t in candidates for s in t.languages if t.covers(s, target)]
            is_translated = any(s != t.known(target) for t, s in covered)
            among = {s for _, s in covered} if is_translated else set()
        if not among:
            raise _refusal(candidates, "auto", target)
        if self.detector is None:
            raise NotReady(f"the model is not ready: {self.progress}", 1.0)
        return self.detector.rank(text, among)

    def verify_complete(self) -> None:
        """Raise Draining or NotReady while an answer about all models would leave some out."""
        for translator in self.candidates(None):
            _healthy(translator)
        self._wait_for_others(None)

    def candidates(self, model: str | None = None) -> list[Translator]:
        """Return the translators that may serve a request: the one it names, or all."""
        if self.is_draining:
            raise Draining("the server is shutting down; retry on another instance", 1.0)
        if not self.translators or (model in self.awaited):
            raise NotReady(f"the model is not ready: {self.progress}", 1.0)
        if not model:
            return list(self.translators.values())
        if model not in self.translators:
            known = ", ".join(self.translators)
            raise UnknownModel(f"no model is called {model[:100]!r}; loaded: {known}")
        return [self.translators[model]]

    def _wait_for_others(self, model: str | None) -> None:
        """Raise NotReady where a model that is still to come might change the answer."""
        if self.awaited and not model:
            raise NotReady(f"not every model is ready: {self.progress}", 1.0)

    # -- how it is going ---------------------------------------------------------------------

    @property
    def status(self) -> str:
        """One of ready, loading, draining, failed."""
        if self.is_draining:
            return "draining"
        engines = [translator.engine for translator in self.translators.values()]
        if self.failure or any(not engine.is_alive for engine in engines):
            return "failed"
        is_ready = engines and not self.awaited and all(engine.is_healthy for engine in engines)
        return "ready" if is_ready else "loading"

    @property
    def states(self) -> dict[str, str]:
        """How far each model is: ready, warming up or recovering, loading, waiting, failed."""
        found = {
            name: "ready" if translator.engine.is_healthy else "warming up or recovering"
            for name, translator in self.translators.items()
        }
        first = "failed" if self.failure else "loading"
        return found | {
            name: "waiting" if number else first for number, name in enumerate(self.awaited)
        }

    def __repr__(self) -> str:
        return f"<Serving {self.status}, {len(self.translators)} models>"


def _healthy(translator: Translator) -> Translator:
    if not translator.engine.is_healthy:
        raise NotReady("the model is not ready: warming up or recovering", 1.0)
    return translator


def _refusal(candidates: list[Translator], source: str, target: str | None) -> UnsupportedLanguage:
    """Say why nobody translates the pair, and what can be asked for."""
    languages = sorted({code for translator in candidates for code in translator.languages})
    if not languages:
        names = ", ".join(translator.card.name for translator in candidates)
        return UnsupportedLanguage(
            f"{names} declares no languages, so that it serves /generate only"
        )
    asked = [target] if source == "auto" else [target, source]
    for code in asked:
        if code and not any(each.known(code) in each.languages for each in candidates):
            more = f"; the loaded languages are: {_listed(languages)}"
            return UnsupportedLanguage(f"{code[:40]} is not supported", more)
    if source == "auto":
        return UnsupportedLanguage(f"no loaded model translates to {target}")
    reachable = {t for t in languages if any(each.covers(source, t) for each in candidates)}
    reachable -= {each.known(source) for each in candidates}
    to = _listed(sorted(reachable)) or "nothing"
    return UnsupportedLanguage(
        f"{english_name(str(target))} ({target}) is not available as a target language from "
        f"{english_name(source)} ({source})",
        f"; {source} can be translated to: {to}",
    )


def _listed(codes: list[str]) -> str:
    more = len(codes) - _LISTED
    return ", ".join(codes[:_LISTED]) + (f" and {more} more (see /languages)" if more > 0 else "")
