"""The start page, made for the prefix under which a proxy shows it."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import Request

from service.api.pages import page


@pytest.mark.parametrize(
    ("root", "begins"),
    [
        ("", '<head>\n<meta charset="utf-8">'),
        ("/unet", '<head>\n<base href="/unet/">\n<meta charset="utf-8">'),
        ('/"><script>', '<head>\n<base href="/&quot;&gt;&lt;script&gt;/">\n<meta charset="utf-8">'),
    ],
)
def test_relative_links_lead_to_the_prefix(root: str, begins: str) -> None:
    answer = asyncio.run(page(Request({"type": "http", "root_path": root})))
    text = bytes(answer.body).decode()
    assert begins in text
    assert text.count("<base") == (1 if root else 0)
