"""What LibreTranslate's clients may ask here, described as its own server does (Swagger 2)."""

from typing import Any

_STRING = {"type": "string"}
_TEXT = _STRING | {"description": "The text; in JSON also a list of several"}
_SOURCE = _STRING | {"description": "Source language code, or auto", "example": "en"}
_TARGET = _STRING | {"description": "Target language code", "example": "de"}
_KEY = _STRING | {"description": "API key, where one is needed"}
_LANGUAGES = {"source": _SOURCE, "target": _TARGET}

_ERROR = {"type": "object", "properties": {"error": _STRING}}
_LANGUAGE = {
    "type": "object",
    "properties": {
        "code": _STRING,
        "name": _STRING,
        "targets": {"type": "array", "items": _STRING},
    },
}
_DETECTION = {
    "type": "object",
    "properties": {
        "confidence": {"type": "number", "minimum": 0, "maximum": 100},
        "language": _STRING,
    },
}
_TRANSLATION = {
    "type": "object",
    "properties": {
        "translatedText": _STRING | {"description": "A list where q is one"},
        "detectedLanguage": _DETECTION | {"description": "With source auto; a list where q is one"},
        "alternatives": {"type": "array", "items": _STRING},
    },
}
_FEATURES = {
    "type": "object",
    "properties": {
        "charLimit": {"type": "integer", "description": "Characters in one text"},
        "frontendTimeout": {"type": "integer"},
        "apiKeys": {"type": "boolean"},
        "keyRequired": {"type": "boolean"},
        "suggestions": {"type": "boolean"},
        "filesTranslation": {"type": "boolean"},
        "supportedFilesFormat": {"type": "array", "items": _STRING},
        "language": {"type": "object"},
    },
}

_JSON_TOO = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
_FORM = ["multipart/form-data"]


def describe(title: str, version: str) -> dict[str, Any]:
    """Return the description; `title` is what clients know a kind of server by."""
    return {
        "swagger": "2.0",
        "info": {
            "title": title,
            "version": version,
            "description": "All routes and fields of this server are in /openapi.json.",
        },
        "basePath": "/",
        "paths": {
            "/translate": _post(
                "Translate one text or several",
                {
                    "q": _TEXT,
                    **_LANGUAGES,
                    "format": _STRING | {"enum": ["text", "html"], "default": "text"},
                    "alternatives": {"type": "integer", "minimum": 0, "default": 0},
                    "api_key": _KEY,
                },
                _TRANSLATION,
            ),
            "/detect": _post(
                "Tell which language a text is in",
                {"q": _STRING, "api_key": _KEY},
                {"type": "array", "items": _DETECTION},
            ),
            "/translate_file": _post(
                "Translate a .txt, .html or .srt file",
                {"file": {"type": "file"}, **_LANGUAGES, "api_key": _KEY},
                {"type": "object", "properties": {"translatedFileUrl": _STRING}},
                _FORM,
            ),
            "/languages": _get(
                "The languages that can be translated", {"type": "array", "items": _LANGUAGE}
            ),
            "/frontend/settings": _get("Limits and features", _FEATURES),
            "/health": _get("Readiness", {"type": "object", "properties": {"status": _STRING}}),
        },
    }


def _get(summary: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": _responses(answer)}}


def _post(
    summary: str,
    fields: dict[str, dict[str, Any]],
    answer: dict[str, Any],
    media: list[str] = _JSON_TOO,
) -> dict[str, Any]:
    optional = ("format", "alternatives", "api_key")
    parameters = [
        {"in": "formData", "name": name, "required": name not in optional, **kind}
        for name, kind in fields.items()
    ]
    operation = {
        "summary": summary,
        "consumes": media,
        "produces": ["application/json"],
        "parameters": parameters,
        "responses": _responses(answer),
    }
    return {"post": operation}


def _responses(answer: dict[str, Any]) -> dict[str, Any]:
    failures = {
        "400": "Invalid request",
        "403": "Not allowed",
        "429": "Slow down",
        "500": "Translation error",
        "503": "Not ready",
    }
    listed = {code: {"description": why, "schema": _ERROR} for code, why in failures.items()}
    return {"200": {"description": "Answer", "schema": answer}, **listed}
