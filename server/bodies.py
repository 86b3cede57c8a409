"""Request bodies, read within their limit and turned into verified fields with errors that help."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from server.errors import BodyTimeout, ClientGone, InvalidRequest, TooLarge, UnsupportedMedia

Fields = TypeVar("Fields", bound=BaseModel)

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_MAX_ITEMS = 100  # fields of a body, and items of any list but the texts
_SMALL_BYTES = 2**16
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form; its name is the client's, to be trusted with nothing."""

    name: str
    content: bytes


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Read a body of at most `max_bytes`; what is larger is refused before it has all arrived.

    Raises:
        TooLarge, UnsupportedMedia, BodyTimeout, ClientGone: whichever limit is met first.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMedia(f"Content-Encoding {encoding[:40]!r} is not read; send identity")
    too_large = TooLarge(f"the body exceeds the limit of {max_bytes} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for part in _parts(request):
                body += part
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError as error:
        raise BodyTimeout(f"the body did not arrive within {timeout_s:.0f} s") from error
    return bytes(body)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left before its body had arrived")
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def read_fields(
    request: Request,
    max_bytes: int,
    timeout_s: float,
    *,
    repeated: Collection[str] = (),
    max_repeats: int = 0,
    max_files: int = 0,
) -> dict[str, Any]:
    """Read a JSON object or a form, with query parameters beside it.

    Args:
        repeated: fields that a form or the query may hold several times: always a list then, of
            values as they were sent.
        max_repeats: how many values there may be beyond those of a form without such fields.
        max_files: how many values of a multipart form may be files; each is an `Upload`.

    Raises:
        InvalidRequest: not JSON in UTF-8, not an object, or a field sent twice.
        TooLarge, UnsupportedMedia, BodyTimeout, ClientGone: as `read_body`.
    """
    body = await read_body(request, max_bytes, timeout_s)
    limit = _MAX_ITEMS + max_repeats
    query = _once(_pairs(request.scope["query_string"], limit), repeated)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == _FORM and not body.lstrip().startswith(
        b"{"
    ):  # curl -d says form, whatever it sends
        fields = _once(await _form(body, limit), repeated)
    elif media == _MULTIPART:
        fields = _once(await _multipart(request, body, limit, max_files), repeated)
    elif body.strip():
        fields = _json(body)
    else:
        fields = {}
    return query | fields


def validate(kind: type[Fields], fields: dict[str, Any], *, large: Collection[str] = ()) -> Fields:
    """Check fields against their schema; the error names the field and never repeats its value.

    Args:
        large: fields that may hold many items; bound them before, since every bad item costs.
    """
    bounded = {name: value for name, value in fields.items() if name not in large}
    _verify_breadth("the request", bounded)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # A union reports one error for each of its members, with the member's name at the end.
        name = ".".join(str(part) for part in first["loc"] if not str(part).startswith("list["))
        name = name.removesuffix(".str").removesuffix(".bool")[:100]
        if first["type"] == "missing":
            raise InvalidRequest(f"Invalid request: missing {name} parameter") from error
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise InvalidRequest(
                f"Invalid request: {name!r} is not a field; known: {known}"
            ) from error
        raise InvalidRequest(f"Invalid request: {name}: {first['msg']}") from error


async def _form(body: bytes, limit: int) -> list[tuple[str, str]]:
    """Read a form; a large one, of which all may be escaped, where nobody else waits for it."""
    if len(body) <= _SMALL_BYTES:
        return _pairs(body, limit)
    return await asyncio.to_thread(_pairs, body, limit)


def _pairs(body: bytes, limit: int) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=limit
        )
    except UnicodeDecodeError as error:
        raise InvalidRequest("Invalid request: the form is not UTF-8") from error
    except ValueError as error:
        raise InvalidRequest(f"Invalid request: more than {limit} form fields") from error


def _json(body: bytes) -> dict[str, Any]:
    try:
        fields = from_json(body.removeprefix(_BOM), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest("Invalid JSON format", f": {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("Invalid JSON format", ": send an object")
    return fields


def _verify_breadth(name: str, value: Any) -> None:
    if isinstance(value, list | dict) and len(value) > _MAX_ITEMS:
        raise InvalidRequest(f"Invalid request: {name[:40]} holds more than {_MAX_ITEMS} items")
    for inner, part in value.items() if isinstance(value, dict) else ():
        _verify_breadth(inner, part)


def _once(items: Sequence[tuple[str, str | Upload]], repeated: Collection[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in items:
        if name in repeated:
            fields.setdefault(name, []).append(value)
            continue
        if name in fields:
            raise InvalidRequest(f"{name[:40]!r} was sent twice; send JSON with a list for several")
        # Browsers send forms with CR LF; JSON keeps its line ends.
        fields[name] = value.replace("\r\n", "\n") if isinstance(value, str) else value
    return fields


async def _multipart(
    request: Request, body: bytes, max_fields: int, max_files: int
) -> list[tuple[str, str | Upload]]:
    async def replay() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, replay(), max_files=max_files, max_fields=max_fields)
    parser.spool_max_size = len(body) + 1  # in memory: there may be no disk to write to
    try:
        return await _values(await parser.parse())
    except MultiPartException as error:
        raise InvalidRequest(f"Invalid request: {error.message}") from error
    except (LookupError, UnicodeError) as error:
        raise InvalidRequest("Invalid request: the form is not UTF-8") from error


async def _values(form: FormData) -> list[tuple[str, str | Upload]]:
    """Return names and values; raises UnicodeError for half of a surrogate pair in them."""
    pairs: list[tuple[str, str | Upload]] = []
    for name, value in form.multi_items():
        name.encode()  # a charset may have smuggled it in
        if isinstance(value, str):
            value.encode()
            pairs.append((name, value))
        else:
            pairs.append((name, Upload(value.filename or "", await value.read())))
    await form.close()
    return pairs
