"""What LibreTranslate's clients ask besides translations: features, files, a description."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import PurePath
from time import monotonic
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server import __version__
from server.bodies import Upload, validate
from server.decoding_fields import DecodingFields
from server.errors import DeadlineExceeded, Disabled, InvalidRequest, NotFound, QueueFull
from server.preparation import Wishes
from server.results import Result
from server.routes.libretranslate_spec import describe
from server.routes.shared import Shared, body_of, verify_present, welcome
from server.routes.translate import speak_libretranslate
from server.routing import prepare
from server.serving import Serving
from server.streaming import while_connected
from server.text import documents
from server.text.cutting import words
from server.text.languages import client_code, english_name
from server.text.rules import TextRules
from server.translator import read_through

router = APIRouter(tags=["libretranslate"], dependencies=[Depends(speak_libretranslate)])

_MEDIA_TYPES = {
    ".txt": "text/plain; charset=utf-8",
    ".text": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".xhtml": "application/xhtml+xml; charset=utf-8",
    ".srt": "application/x-subrip; charset=utf-8",
    ".vtt": "text/vtt; charset=utf-8",
}
_SAMPLE_CHARACTERS = 4000  # of a file, by which its language is told
_STEM_CHARACTERS = 80


class FileFields(BaseModel):
    """LibreTranslate's fields beside the file, and the model."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="A language code, or auto: detected once for the whole file.")
    target: str
    api_key: str | None = None
    secret: str | None = Field(None, description="Sent by LibreTranslate's own page; not used.")
    model: str | None = Field(None, description="Which loaded model.")


@router.get("/frontend/settings", summary="What LibreTranslate's clients ask first")
async def frontend_settings(shared: Shared) -> dict[str, Any]:
    """Describe this server's limits and features."""
    return {
        "apiKeys": shared.keys.are_required,
        "charLimit": shared.settings.max_characters,
        "filesTranslation": _translates_files(shared),
        "frontendTimeout": 500,
        "keyRequired": shared.keys.are_required,
        "language": {
            "source": {"code": "auto", "name": "Auto Detect"},
            "target": _default_target(shared),
        },
        "suggestions": False,
        "supportedFilesFormat": list(_MEDIA_TYPES) if _translates_files(shared) else [],
    }


def _default_target(shared: Serving) -> dict[str, str]:
    codes = [code for t in shared.translators.values() for code in t.languages]
    code = next((code for code in codes if code != "en"), "en")
    return {"code": client_code(code), "name": english_name(code)}


def _translates_files(shared: Serving) -> bool:
    return shared.files.max_bytes > 0


@router.get("/spec", summary="LibreTranslate's routes, as Swagger 2")
async def spec(shared: Shared) -> dict[str, Any]:
    """Describe what LibreTranslate's clients may ask; all routes are in /openapi.json."""
    return describe(shared.settings.spec_title, __version__)


@router.post("/suggest", summary="Refused: there are no suggestions")
async def suggest(request: Request, shared: Shared) -> Response:
    """Answer 403 in LibreTranslate's words."""
    await welcome(request, shared)
    raise Disabled("Suggestions are disabled on this server.")


def _file_body() -> dict[str, Any]:
    described = body_of(FileFields)["requestBody"]
    schema = described["content"]["application/json"]["schema"]
    schema["properties"]["file"] = {"type": "string", "format": "binary"}
    schema["required"].append("file")
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


@router.post(
    "/translate_file",
    summary="Translate a file",
    response_model=dict[str, Any],
    openapi_extra=_file_body(),
)
async def translate_file(request: Request, shared: Shared) -> JSONResponse:
    """Answer `translatedFileUrl`, where the translation can be fetched for half an hour."""
    if not _translates_files(shared):
        raise Disabled("Files translation are disabled on this server.")
    began_s = monotonic()
    sent = await welcome(request, shared, max_files=1)
    upload = sent.pop("file", None)
    if not isinstance(upload, Upload):
        raise InvalidRequest("Invalid request: missing file parameter")
    verify_present(sent, "source", "target")
    fields = validate(FileFields, sent)
    stem, extension = _name_of(upload)
    document = await _read(upload, extension, shared.settings.max_characters)
    request.state.log = {"texts": len(document.texts)}
    ends_s = began_s + shared.settings.request_timeout_s
    results = await while_connected(request, _translate(shared, document, fields, ends_s))
    content = document.written([result.text for result in results]).encode()
    name = f"{stem}_{_safe(fields.target, 20)}{extension}"
    key = shared.files.put(name, _MEDIA_TYPES[extension], content)
    answer: dict[str, Any] = {
        "translatedFileUrl": str(request.url_for("download_file", name=key)),
    }
    warnings = [
        f"line {line}: {warning}"
        for line, result in zip(document.lines, results, strict=True)
        for warning in result.warnings
    ]
    return JSONResponse(answer | ({"warnings": warnings} if warnings else {}))


def _name_of(upload: Upload) -> tuple[str, str]:
    """Return a stem and an extension that are safe in links, headers and file systems.

    Raises:
        InvalidRequest: no name, or an extension that is not read.
    """
    if not upload.name:
        raise InvalidRequest("Invalid request: empty file")
    path = PurePath(upload.name.replace("\\", "/"))
    extension = path.suffix.lower()
    if extension not in _MEDIA_TYPES:
        raise InvalidRequest(
            "Invalid request: file format not supported",
            f"; supported are {' '.join(_MEDIA_TYPES)}",
        )
    return _safe(path.stem, _STEM_CHARACTERS) or "translated", extension


def _safe(name: str, limit: int) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", name)[:limit].strip("_")


async def _read(upload: Upload, extension: str, max_characters: int) -> documents.Document:
    try:
        content = upload.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"Invalid request: the file is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error
    kind = documents.EXTENSIONS[extension]
    try:
        return await read_through(
            [content], lambda: documents.read(content, kind, max_characters=max_characters)
        )
    except ValueError as error:
        raise InvalidRequest(f"Invalid request: {error}") from error


async def _translate(
    shared: Serving, document: documents.Document, fields: FileFields, ends_s: float
) -> list[Result]:
    """Translate a file's texts, as many at a time as a request may hold."""
    source = fields.source
    if source.lower() == "auto":
        sample = "\n".join(document.texts)[:_SAMPLE_CHARACTERS]
        detected = await read_through(
            [sample],
            lambda: shared.detect(words(sample, document.rules), fields.target, fields.model),
        )
        source = detected[0].language
    shared.for_pair(source, fields.target, fields.model)  # also where there is nothing to translate
    results: list[Result] = []
    while left := document.texts[len(results) :][: shared.settings.max_texts]:
        try:
            results += await _translate_some(shared, left, document.rules, source, fields, ends_s)
        except QueueFull as error:
            if not results:
                raise
            await asyncio.sleep(error.retry_after_s or 0)  # rather than lose what is done
    return results


async def _translate_some(
    shared: Serving,
    texts: Sequence[str],
    rules: TextRules,
    source: str,
    fields: FileFields,
    ends_s: float,
) -> list[Result]:
    left_s = ends_s - monotonic()
    if left_s <= 0:
        raise DeadlineExceeded("the file was not translated within its time; send it in parts")
    translation = await prepare(
        shared,
        texts,
        source,
        fields.target,
        DecodingFields(),
        Wishes(),
        rules=rules,
        model=fields.model,
        timeout_s=left_s,
    )
    async with translation:
        return await translation.collect()


@router.get("/download_file/{name}", summary="A translated file", response_class=Response)
async def download_file(name: str, shared: Shared) -> Response:
    """Send a file that `/translate_file` named; whoever has the link may fetch it."""
    file = shared.files.get(name)
    if file is None:
        raise NotFound("no such file; translated files are kept for half an hour at most")
    headers = {
        "Content-Disposition": f'attachment; filename="{file.name}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    return Response(file.content, headers=headers, media_type=file.media_type)
