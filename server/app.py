"""create_app: the only wiring of settings, models and routes into an ASGI application."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from model import BUNDLED, DecodingOptions, Model, Reference, load
from server import __version__
from server.access import AccessLog
from server.device_lock import DeviceLock
from server.engine import Engine
from server.messages import Request, Update
from server.metrics import Metrics
from server.problems import install
from server.routes import health, translate
from server.scheduler import Scheduler
from server.serving import Serving
from server.settings import Dialect, Settings
from server.text.languages import LanguageDetector
from server.translator import Translator

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_DESCRIPTION = (
    "Encoder-decoder models served with continuous batching, cached latents and streaming."
)


def create_app(settings: Settings, models: Sequence[Model] | None = None) -> FastAPI:
    """Make the application; it keeps no state outside itself.

    Args:
        models: loaded already; by default the settings say which, and they are loaded behind the
            open port once the application starts.
    """
    metrics = Metrics(CollectorRegistry(), __version__)
    serving = Serving(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(serving, models))
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            for translator in serving.translators.values():
                await asyncio.to_thread(translator.engine.stop)

    app = FastAPI(
        title="Stele",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.serving = serving
    install(app)
    for router in _routers(settings.dialects):
        app.include_router(router)
    if settings.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            max_age=1_728_000,
        )
    app.add_middleware(AccessLog, metrics=metrics)
    return app


def _routers(dialects: Sequence[Dialect]) -> list[APIRouter]:
    """Return our own routes and those of `dialects`; what nobody speaks is not imported."""
    routers = [translate.router, translate.native, health.router]
    if "libretranslate" in dialects:
        from server.routes import libretranslate

        routers.append(libretranslate.router)
    if "deepl" in dialects:
        from server.routes import deepl

        routers.append(deepl.router)
    if "openai" in dialects:
        from server.routes import openai

        routers.append(openai.router)
    if "tgi" in dialects:
        from server.routes import generate, tgi

        routers += [generate.router, tgi.router]
    return routers


async def _load(serving: Serving, models: Sequence[Model] | None) -> None:
    """Fill `serving`; a failure is kept there for whoever runs the process."""
    began = time.monotonic()
    try:
        await load_into(serving, models)
    except (ValueError, OSError) as error:
        serving.failure = error
        serving.progress = f"failed: {error}"
        logger.error("cannot serve: %s", error)
        return
    except Exception as error:  # whatever it is, the process must not wait for ever
        serving.failure = error
        serving.progress = f"failed: {error}"
        logger.exception("cannot serve")
        return
    serving.progress = f"loaded in {time.monotonic() - began:.1f} s"
    logger.info("%s", serving.progress)


async def load_into(serving: Serving, models: Sequence[Model] | None = None) -> None:
    """Load what the settings name into `serving`, one after the other, and start its engines.

    Args:
        models: loaded already.

    Raises:
        ValueError, OSError: one helpful line that names the model.
    """
    settings = serving.settings
    references = [Reference.parse(text) for text in settings.model or [str(BUNDLED)]]
    names = [r.name for r in references] if models is None else [m.card.name for m in models]
    _verify_distinct(names)
    serving.awaited = list(names)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    detecting = _on_a_thread(LanguageDetector)  # beside the first model
    device = DeviceLock()  # all models run where the settings say
    for number, name in enumerate(names):
        serving.progress = f"loading {name} ({number + 1} of {len(names)})"
        if models is None:
            work = partial(load_model, references[number], settings)
            model = await _on_a_thread(work)
        else:
            model = models[number]
        _verify_room(model, settings)
        serving.detector = serving.detector or await detecting
        translator = build_translator(model, settings, serving.metrics, device)
        translator.engine.start()
        serving.translators[name] = translator
        del serving.awaited[0]
    serving.progress = "warming up"


def _verify_distinct(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two models are called {name}; give one another name: --model OTHER=NAME_OR_DIR"
            )


def _verify_room(model: Model, settings: Settings) -> None:
    """Refuse a model whose every request would be refused for the beams it asks for itself."""
    beams = model.card.defaults.get("num_beams", 1)
    limits = {"slots": min(settings.slots, model.runner.rows), "max-beams": settings.max_beams}
    for name, limit in limits.items():
        if beams > limit:
            raise ValueError(
                f"{model.card.name}: its generation_config.json asks for {beams} beams, and there "
                f"are {limit}: --{name} {beams} or more"
            )


def _on_a_thread(work: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Work on a thread that does not hold the process: a download may be given up."""
    done: Future[_Result] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="loader", daemon=True).start()
    return asyncio.wrap_future(done)


def load_model(reference: Reference, settings: Settings) -> Model:
    """Fetch and load one model; raises ValueError or OSError with one line that names it."""
    try:
        folder = reference.locate(offline=settings.offline)
        model = load(
            folder,
            name=reference.name,
            device=settings.device,
            precision=settings.precision,
            slots=settings.slots,
            latent_bytes=settings.latent_cache_bytes,
        )
    except (ValueError, OSError) as error:
        name = reference.name
        raise ValueError(str(error) if name in str(error) else f"{name}: {error}") from error
    revision = None if reference.is_folder else folder.name
    return replace(model, card=replace(model.card, source=reference.place, revision=revision))


def build_translator(
    model: Model, settings: Settings, metrics: Metrics, device: DeviceLock
) -> Translator:
    """Put an engine and a translator in front of a model; the engine is not started."""
    eos = model.runner.config.eos
    slots = min(settings.slots, model.runner.rows)  # a model that came loaded may have fewer

    def engine(publish: Callable[[Sequence[Update]], None]) -> Engine:
        return Engine(
            model.runner,
            Scheduler(slots, eos, settings.source_tokens_per_tick),
            publish,
            metrics.for_model(model.card.name),
            probe=Request((eos,), DecodingOptions(max_new_tokens=1)),
            max_waiting=settings.max_waiting_segments,
            device=device,
        )

    return Translator(
        model.card,
        model.tokenizer,
        engine,
        max_texts=settings.max_texts,
        max_characters=settings.max_characters,
        max_beams=settings.max_beams,
    )
