"""Pages for people: start page, documentation, an explanation of each problem. Nothing comes from elsewhere."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

import service
from service.errors import KINDS

router = APIRouter(include_in_schema=False)

SWAGGER_ASSETS = Path(str(files("fastapi_offline") / "static"))
"""Folder of Swagger UI's files, as an installed package brings them."""
SWAGGER_PATH = "/docs/assets"
"""Where the application serves them."""

_PAGE_FILES = Path(service.__file__).parent / "static"
_PAGE = (_PAGE_FILES / "index.html").read_text(encoding="utf-8")
_SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in _PAGE_FILES.glob("*.js")}
_POLICY = "default-src 'self'; style-src 'unsafe-inline'; img-src 'self' blob: data:"


@router.get("/")
async def page(request: Request) -> HTMLResponse:
    """Drop an image, see its segmentation."""
    root = request.scope.get("root_path", "")
    # proxies also hand over the prefix without a slash behind it, from where relative links would lead elsewhere
    base = f'<head>\n<base href="{escape(root)}/">' if root else "<head>"
    return HTMLResponse(_PAGE.replace("<head>", base, 1), headers={"Content-Security-Policy": _POLICY})


@router.get("/static/{name}")
async def script(name: str) -> Response:
    """Return one of the page's scripts, which no cache may keep: they belong to the page of this version."""
    if name not in _SCRIPTS:
        raise HTTPException(404)
    return Response(_SCRIPTS[name], media_type="text/javascript", headers={"Cache-Control": "no-store"})


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI from this server's own files: laboratories are often cut off from the internet."""
    root = request.scope.get("root_path", "")
    shown = get_swagger_ui_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=request.app.title,
        swagger_js_url=f"{root}{SWAGGER_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{SWAGGER_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{root}{SWAGGER_PATH}/favicon.png",
        # without this the page asks a validator on the internet
        swagger_ui_parameters={"validatorUrl": None},
    )
    address = f'<head>\n<script src="{escape(root)}/static/address.js"></script>'
    return HTMLResponse(bytes(shown.body).decode().replace("<head>", address, 1))


@router.get("/problems/{slug}")
async def problem(slug: str) -> PlainTextResponse:
    """Explain one kind of problem: what its ``type`` leads to."""
    kind = next((kind for kind in KINDS if kind.slug == slug), None)
    if kind is None:
        raise HTTPException(404)
    return PlainTextResponse(f"{kind.status} {kind.title}\n\n{kind.remedy}\n")
