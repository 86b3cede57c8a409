"""DeepL's dialect, version 2: translation, languages and usage; what is not served says so."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from server.bodies import read_body, validate
from server.errors import DeadlineExceeded, InvalidRequest, NotFound, UnsupportedLanguage
from server.preparation import Wishes
from server.results import Result
from server.routes.deepl_fields import LISTS, TranslateFields
from server.routes.shared import Shared, body_of, warnings_by_text, welcome
from server.routing import Translation, prepare
from server.serving import Serving
from server.streaming import while_connected
from server.text.languages import english_name
from server.translator import verify_count

_UNLIMITED = 10**12  # characters; what DeepL itself answers where nothing is limited
_RETRY_AFTER_S = 1.0
_CONTEXT = "context was not used: the models read one sentence at a time"

# Varieties that DeepL's clients ask for by name; some refuse EN and PT as targets themselves.
_VARIETIES = {
    "EN": {"EN-GB": "English (British)", "EN-US": "English (American)"},
    "PT": {"PT-BR": "Portuguese (Brazilian)", "PT-PT": "Portuguese (European)"},
    "ZH": {
        "ZH": "Chinese",
        "ZH-HANS": "Chinese (simplified)",
        "ZH-HANT": "Chinese (traditional)",
    },
}


async def speak_deepl(request: Request) -> None:
    """Let failures look as DeepL's clients expect, and every response carry their trace id."""
    request.state.dialect = "deepl"
    request.state.id_headers = ("X-Trace-ID",)


router = APIRouter(tags=["DeepL"], dependencies=[Depends(speak_deepl)])


async def _admitted(request: Request, shared: Shared) -> dict[str, Any]:
    return await welcome(request, shared, key_field="auth_key", repeated=LISTS)


Sent = Annotated[dict[str, Any], Depends(_admitted)]


@router.get("/v2/translate", summary="Translate texts in the query")
@router.post(
    "/v2/translate",
    summary="Translate texts",
    openapi_extra=body_of(TranslateFields, "application/x-www-form-urlencoded"),
)
async def translate(request: Request, sent: Sent, shared: Shared) -> JSONResponse:
    """Answer one translation for each text, in order, with what was detected and is billed."""
    fields, limit_s = _fields(sent, shared.settings.max_texts), shared.settings.deepl_timeout_s
    decoding, model_type = fields.decoding(*_beams(shared))
    try:
        async with asyncio.timeout(limit_s):  # which bounds preparation, too
            translation = await prepare(
                shared,
                fields.text,
                fields.source_lang or "auto",
                fields.target_lang,
                decoding,
                Wishes(),
                rules=fields.rules,
                timeout_s=limit_s,
            )
            request.state.log = {"model": translation.models, "texts": len(fields.text)}
            results = await while_connected(request, _collect(translation))
    except UnsupportedLanguage as error:
        name = _unsupported(fields, shared)
        raise UnsupportedLanguage(f"Value for {name!r} not supported. {error}") from error
    except (DeadlineExceeded, TimeoutError) as error:
        request.state.outcome = "expired"  # also where the status says that it may be sent again
        raise _late(limit_s) from error
    shared.billed_characters += sum(map(len, fields.text))
    return JSONResponse(_answer(fields, model_type, results))


def _fields(sent: dict[str, Any], max_texts: int) -> TranslateFields:
    for name in ("text", "target_lang"):
        if sent.get(name) in (None, "", []):
            raise InvalidRequest(f"Parameter {name!r} not specified.")
    if isinstance(sent["text"], list):
        verify_count(len(sent["text"]), max_texts)
    fields = validate(TranslateFields, sent, large=("text",))
    fields.verify()
    return fields


def _beams(shared: Serving) -> tuple[int, int]:
    """Return how many beams the models search with by themselves, and how many are allowed."""
    usual = (t.card.defaults.get("num_beams", 1) for t in shared.candidates())
    return max(usual), min(shared.settings.max_beams, shared.settings.slots)


async def _collect(translation: Translation) -> list[Result]:
    async with translation:
        return await translation.collect()


def _late(limit_s: float) -> DeadlineExceeded:
    error = DeadlineExceeded(
        f"the texts were not translated within {limit_s:g} s; send fewer at once, or later "
        "(--deepl-timeout-s allows more)"
    )
    error.retry_after_s = _RETRY_AFTER_S
    return error


def _unsupported(fields: TranslateFields, shared: Serving) -> str:
    """Return which field asks for what no model has."""
    candidates = shared.candidates()

    def is_known(code: str) -> bool:
        return any(each.known(code) in each.languages for each in candidates)

    source = fields.source_lang or "auto"
    is_target = source.lower() == "auto" or is_known(source) or not is_known(fields.target_lang)
    return "target_lang" if is_target else "source_lang"


def _answer(
    fields: TranslateFields, model_type: str | None, results: list[Result]
) -> dict[str, Any]:
    translations = []
    for text, result in zip(fields.text, results, strict=True):
        source = result.detected.language if result.detected else fields.source_lang or ""
        one: dict[str, Any] = {
            "detected_source_language": source_code(source),
            "text": result.text,
            "billed_characters": len(text),
        }
        translations.append(one | ({"model_type_used": model_type} if model_type else {}))
    answer: dict[str, Any] = {"translations": translations}
    warnings = [*([_CONTEXT] if fields.context else []), *warnings_by_text(results)]
    return answer | ({"warnings": warnings} if warnings else {})


def source_code(code: str) -> str:
    """Return DeepL's code of a source, which tells no varieties apart."""
    language = code.replace("_", "-").partition("-")[0].upper()
    return "NB" if language == "NO" else language


@router.get("/v2/languages", summary="The languages, as sources or as targets")
@router.post("/v2/languages", include_in_schema=False)
async def languages(sent: Sent, shared: Shared) -> JSONResponse:
    """List source languages, or targets where `type` says so; formality is never supported."""
    if unknown := sorted(sent.keys() - {"type", "auth_key"}):
        raise InvalidRequest(f"{unknown[0][:100]!r} is not a field; known: type, auth_key")
    kind = sent.get("type", "source")
    if kind not in ("source", "target"):
        raise InvalidRequest("Value for 'type' not supported: send source or target")
    shared.verify_complete()
    cards = [translator.card for translator in shared.translators.values()]
    if kind == "source":
        codes = {source_code(code): code for card in cards for code in card.targets}
        named = {deepl: english_name(code.partition("-")[0]) for deepl, code in codes.items()}
    else:
        named = _targets(
            code for card in cards for codes in card.targets.values() for code in codes
        )
    extra = {} if kind == "source" else {"supports_formality": False}
    listed = [{"language": code, "name": named[code], **extra} for code in sorted(named)]
    return JSONResponse(listed)


def _targets(codes: Iterable[str]) -> dict[str, str]:
    """Return DeepL's codes of targets with their names; a language stands for its varieties."""
    named: dict[str, str] = {}
    for code in codes:
        language, variety = source_code(code), code.upper()
        known = _VARIETIES.get(language, {language: english_name(code.partition("-")[0])})
        named |= {variety: known[variety]} if variety in known and "-" in variety else known
    return named


@router.get("/v2/usage", summary="Characters translated since the start")
@router.post("/v2/usage", include_in_schema=False)
async def usage(sent: Sent, shared: Shared) -> JSONResponse:
    """Answer how many characters this process has translated by this API; there is no limit."""
    answer = {"character_count": shared.billed_characters, "character_limit": _UNLIMITED}
    return JSONResponse(answer)


@router.get("/v2/glossary-language-pairs", include_in_schema=False)
async def glossary_pairs(sent: Sent) -> JSONResponse:
    """Answer that glossaries are supported for no pair."""
    return JSONResponse({"supported_languages": []})


@router.get("/v2/glossaries", include_in_schema=False)
@router.get("/v3/glossaries", include_in_schema=False)
async def glossaries(sent: Sent) -> JSONResponse:
    """Answer that there are none."""
    return JSONResponse({"glossaries": []})


@router.post("/v2/glossaries", include_in_schema=False)
@router.post("/v3/glossaries", include_in_schema=False)
async def create_glossary(sent: Sent) -> None:
    """Refuse: nothing is stored here."""
    raise InvalidRequest("glossaries cannot be created: this server stores none")


_ALL = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@router.api_route("/v2/glossaries/{rest:path}", methods=_ALL, include_in_schema=False)
@router.api_route("/v3/glossaries/{rest:path}", methods=_ALL, include_in_schema=False)
async def glossary(sent: Sent) -> None:
    """Answer that there is no such glossary."""
    raise NotFound("there is no such glossary: this server stores none")


@router.post("/v2/document", include_in_schema=False)
async def document(request: Request, shared: Shared) -> None:
    """Refuse: DeepL's documents are not served."""
    shared.keys.verify(request.headers.get("authorization"), request.query_params.get("auth_key"))
    # A file that is left unread would end the connection before its client has read the answer.
    await read_body(request, shared.settings.max_body_bytes, shared.settings.body_timeout_s)
    raise InvalidRequest(
        "documents are not translated by this API here; send their text to /v2/translate"
    )


@router.api_route("/v2/document/{rest:path}", methods=_ALL, include_in_schema=False)
async def document_status(sent: Sent) -> None:
    """Answer that there is no such document."""
    raise NotFound("there is no such document: this server stores none")
