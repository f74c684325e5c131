"""Takes the pictures of the studio that the README shows: starts it, tries an example in a headless Chromium, in
English and in Chinese, and writes docs/images/studio_en.png and studio_zh.png.

    python demo/screenshots.py [FOLDER]

Needs the extras `demo` and `test`, Chromium on the PATH, and a font with Chinese characters (Noto Sans CJK).
"""
from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).resolve().parents[1] / 'docs' / 'images'
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
LANGUAGES = {'en': 'en-US', 'zh': 'zh-CN'}
SIZE = {'width': 1280, 'height': 1000}
SECONDS = 120_000   # milliseconds


def main(folder: Path = IMAGES) -> None:
    """Writes the pictures into a folder."""
    from playwright.sync_api import sync_playwright

    from modelscope_fastinst.checkpoints.writing import write_whole
    from modelscope_fastinst.studio.app import launch
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        raise SystemExit(f'no browser on the PATH ({", ".join(BROWSERS)}): install Chromium')
    folder.mkdir(parents=True, exist_ok=True)
    with launch(port=0, device='cpu') as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=['--no-sandbox'])
        for language, locale in LANGUAGES.items():
            page = browser.new_page(locale=locale, viewport=SIZE)
            page.goto(server.address)
            write_whole(folder / f'studio_{language}.png', smaller(photograph(page)))
            print(folder / f'studio_{language}.png')
            page.close()
        browser.close()


def photograph(page: Any) -> bytes:
    """The page after an example was segmented and one of its instances was chosen, as PNG."""
    page.locator('#run').wait_for(timeout=SECONDS)
    page.locator('#examples_tab button, button.gallery-item').nth(1).click()
    page.locator('#facts .stages').wait_for(timeout=SECONDS)
    page.locator('[data-testid=cell-2-1]').click()
    page.locator('#facts .chosen').wait_for(timeout=SECONDS)
    page.mouse.move(0, 0)
    page.evaluate('document.activeElement.blur()')
    page.evaluate('window.scrollTo(0, 0)')
    page.wait_for_timeout(2000)   # fading in, and a paint of the new place
    return page.screenshot()


def smaller(content: bytes) -> bytes:
    """The same PNG in 256 colours."""
    from PIL import Image
    output = io.BytesIO()
    with Image.open(io.BytesIO(content)) as picture:
        picture.convert('RGB').quantize(256, dither=Image.Dither.NONE).save(output, format='PNG', optimize=True)
    return output.getvalue()


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:]))
