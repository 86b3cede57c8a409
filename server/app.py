"""create_app: the only wiring of settings, models and routes into an ASGI application."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from model import BUNDLED, DecodingOptions, Model, load
from server import __version__
from server.access import AccessLog
from server.engine import Engine
from server.messages import Request, Update
from server.metrics import Metrics
from server.problems import install
from server.routes import generate, health, translate
from server.scheduler import Scheduler
from server.serving import Serving
from server.settings import Settings
from server.text.languages import LanguageDetector
from server.translator import Translator

logger = logging.getLogger(__name__)

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
    for router in (translate.router, translate.native, generate.router, health.router):
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


async def _load(serving: Serving, models: Sequence[Model] | None) -> None:
    """Fill `serving`; a failure is kept there for whoever runs the process."""
    began = time.monotonic()
    try:
        if models is None:
            serving.progress = "loading the model"
            models = [await asyncio.to_thread(load_model, serving.settings)]
        for model in models:
            detector = await asyncio.to_thread(load_detector, model)
            translator = build_translator(model, detector, serving.settings, serving.metrics)
            serving.progress = "warming up"
            translator.engine.start()
            serving.translators[model.card.name] = translator
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


def load_model(settings: Settings) -> Model:
    """Load the model that the settings name; raises ValueError or OSError with one helpful line."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return load(
        settings.model or BUNDLED,
        device=settings.device,
        precision=settings.precision,
        slots=settings.slots,
        latent_bytes=settings.latent_cache_bytes,
    )


def load_detector(model: Model) -> LanguageDetector | None:
    """Load what tells the model's languages apart; None where it declares none."""
    return LanguageDetector(model.card.languages) if model.card.languages else None


def build_translator(
    model: Model, detector: LanguageDetector | None, settings: Settings, metrics: Metrics
) -> Translator:
    """Put an engine and a translator in front of a model; the engine is not started."""
    eos = model.runner.config.eos

    def engine(publish: Callable[[Sequence[Update]], None]) -> Engine:
        return Engine(
            model.runner,
            Scheduler(settings.slots, eos, settings.source_tokens_per_tick),
            publish,
            metrics.for_model(model.card.name),
            probe=Request((eos,), DecodingOptions(max_new_tokens=1)),
            max_waiting=settings.max_waiting_segments,
        )

    return Translator(
        model.card,
        model.tokenizer,
        detector,
        engine,
        max_texts=settings.max_texts,
        max_characters=settings.max_characters,
    )
