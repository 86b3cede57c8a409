"""Every metric the server exports, in one place."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class ModelMetrics:
    """The instruments of one model; every series carries its name."""

    def __init__(self, metrics: "Metrics", model: str) -> None:
        self.queue_s = metrics.queue_s.labels(model)
        self.time_to_first_token_s = metrics.time_to_first_token_s.labels(model)
        self.inter_token_s = metrics.inter_token_s.labels(model)
        self.encoder_batch_size = metrics.encoder_batch_size.labels(model)
        self.decoder_batch_size = metrics.decoder_batch_size.labels(model)
        self.running = metrics.running.labels(model)
        self.waiting = metrics.waiting.labels(model)
        self.slots = metrics.slots.labels(model)
        self.slots_used = metrics.slots_used.labels(model)
        self.latent_cache_bytes = metrics.latent_cache_bytes.labels(model)
        self.source_tokens = metrics.source_tokens.labels(model)
        self.target_tokens = metrics.target_tokens.labels(model)
        self._latent_cache_hits = metrics.latent_cache_hits.labels(model)
        self._latent_cache_misses = metrics.latent_cache_misses.labels(model)
        self._latents_counted = (0, 0)

    def count_latents(self, hits: int, misses: int) -> None:
        """Bring both counters up to the cache's own totals."""
        hits_before, misses_before = self._latents_counted
        self._latent_cache_hits.inc(hits - hits_before)
        self._latent_cache_misses.inc(misses - misses_before)
        self._latents_counted = (hits, misses)


class Metrics:
    """Instruments on one registry; tests pass their own and read it back."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"stele_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"stele_{name}", text, ["model"], registry=registry)

        def histogram(name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"stele_{name}", text, [label], registry=registry, buckets=buckets)

        self.registry = registry
        self.requests = counter("requests_total", "HTTP requests ended.", "route", "outcome")
        self.rejected = counter("rejected_total", "Requests refused, by reason.", "reason")
        self.request_s = histogram(
            "request_seconds", "First byte in to last out.", "route", _SECONDS
        )
        self.queue_s = histogram("queue_seconds", "Accepted to admitted.", "model", _SECONDS)
        self.time_to_first_token_s = histogram(
            "time_to_first_token_seconds", "Accepted to first token.", "model", _SECONDS
        )
        self.inter_token_s = histogram(
            "inter_token_seconds",
            "Between two tokens of everything that runs; one observation a step.",
            "model",
            _STEP_SECONDS,
        )
        self.encoder_batch_size = histogram(
            "encoder_batch_size", "Sources encoded in one tick.", "model", _BATCH
        )
        self.decoder_batch_size = histogram(
            "decoder_batch_size", "Rows decoded together; one observation a step.", "model", _BATCH
        )
        self.running = gauge("requests_running", "Generations that hold a slot.")
        self.waiting = gauge("requests_waiting", "Generations accepted that hold no slot yet.")
        self.slots = gauge("slots", "Rows the model can decode together.")
        self.slots_used = gauge("slots_used", "Rows in use.")
        self.latent_cache_bytes = gauge("latent_cache_bytes", "Encoder outputs kept for reuse.")
        self.source_tokens = counter("source_tokens_total", "Source tokens accepted.", "model")
        self.target_tokens = counter("target_tokens_total", "Target tokens generated.", "model")
        self.latent_cache_hits = counter(
            "latent_cache_hits_total", "Sources that skipped the encoder.", "model"
        )
        self.latent_cache_misses = counter(
            "latent_cache_misses_total", "Sources that were encoded.", "model"
        )
        ProcessCollector(registry=registry)
        Info("stele_build", "What is running.", registry=registry).info({"version": version})

    def for_model(self, name: str) -> ModelMetrics:
        """Return the instruments that carry `model=name`."""
        return ModelMetrics(self, name)
