"""`python -m benchmarks.peers.ct2_server`: CTranslate2 behind FastAPI, batching dynamically.

As its users build it: requests queue, a batch is closed when it is full or some milliseconds old,
and runs on a thread while the next one fills.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import sentencepiece
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    """The fields of Stele's `/translate` that are used here."""

    q: str | list[str]
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    pieces: list[str]
    done: asyncio.Future[list[str]]


class Batcher:
    """Lets what arrives within `wait_s` share a call."""

    def __init__(
        self, translator: ctranslate2.Translator, max_batch: int, wait_s: float, calls: int
    ) -> None:
        self._translator = translator
        self._max_batch, self._wait_s = max_batch, wait_s
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._free = asyncio.Semaphore(calls)
        self._running: set[asyncio.Task[None]] = set()

    async def translate(self, pieces: list[str]) -> list[str]:
        """Return the target's pieces."""
        waiting = _Waiting(pieces, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.done

    async def run(self) -> None:
        """Batch for ever."""
        while True:
            await self._free.acquire()  # what arrives meanwhile shares the next batch
            batch = await self._next()
            task = asyncio.create_task(self._call(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _next(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        loop = asyncio.get_running_loop()
        end = loop.time() + self._wait_s
        while len(batch) < self._max_batch:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            try:
                async with asyncio.timeout_at(end):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    async def _call(self, batch: list[_Waiting]) -> None:
        try:
            answer: list[Any] = await asyncio.to_thread(
                self._translator.translate_batch,
                [each.pieces for each in batch],
                beam_size=1,
                max_batch_size=self._max_batch,
            )
            for each, result in zip(batch, answer, strict=True):
                each.done.set_result(result.hypotheses[0])
        except Exception as error:
            for each in batch:
                if not each.done.done():
                    each.done.set_exception(error)
        finally:
            self._free.release()


def create_app(options: argparse.Namespace) -> FastAPI:
    """Load the model and make the application."""
    translator = ctranslate2.Translator(
        str(options.folder),
        compute_type=options.precision,
        intra_threads=options.intra,
        inter_threads=options.inter,
    )
    source, target = (
        sentencepiece.SentencePieceProcessor(model_file=str(options.folder / name))
        for name in ("source.spm", "target.spm")
    )
    batcher = Batcher(translator, options.max_batch, options.wait_ms / 1000, options.inter)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()

    app = FastAPI(lifespan=lifespan)

    async def one(text: str, language: str) -> str:
        pieces = [f">>{language}<<", *source.encode(text, out_type=str), "</s>"]
        return str(target.decode(await batcher.translate(pieces)))

    @app.post("/translate")
    async def translate(body: Body) -> dict[str, Any]:
        if isinstance(body.q, str):
            return {"translatedText": await one(body.q, body.target)}
        return {
            "translatedText": await asyncio.gather(*(one(text, body.target) for text in body.q))
        }

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.ct2_server")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--intra", type=int, default=1)
    parser.add_argument("--inter", type=int, default=1)
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--wait-ms", type=float, default=5)
    options = parser.parse_args()
    uvicorn.run(create_app(options), port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
