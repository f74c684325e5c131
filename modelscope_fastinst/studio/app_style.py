"""How the pages look: colours, fonts of the visitor's own system, and what a narrow window needs."""
from __future__ import annotations

import gradio as gr

# Nothing is fetched: no font of Google's, and none of Gradio's own has Chinese characters.
FONTS = ('system-ui', '-apple-system', 'Segoe UI', 'PingFang SC', 'Hiragino Sans GB', 'Microsoft YaHei',
         'Noto Sans CJK SC', 'Noto Sans SC', 'Source Han Sans SC', 'sans-serif')
MONOSPACE = ('ui-monospace', 'SFMono-Regular', 'Menlo', 'Consolas', 'monospace')

CSS = '''
.gradio-container { width: 100%; max-width: 1360px !important; margin: 0 auto !important; }
#head { display: grid; grid-template-columns: 1fr auto; align-items: end; gap: 0.2rem 1.2rem; }
#head h1 { margin: 0.2rem 0 0.3rem 0; font-size: 1.7rem; letter-spacing: -0.01em; }
#head p { margin: 0; }
#head > * { width: auto !important; min-width: 0 !important; }
.links p { margin: 0; text-align: right; white-space: nowrap; }
.facts { font-variant-numeric: tabular-nums; min-height: 1.6em; }
.facts .stages { color: var(--body-text-color-subdued); font-size: 0.9em; }
.facts .chip { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 0.2em; margin-right: 0.45em;
               border: 1px solid rgb(0 0 0 / 35%); vertical-align: -0.05em; }
.notice { border-left: 4px solid var(--color-red-500, #ef4444); padding: 0.6rem 0.9rem; border-radius: 0.4rem;
          background: var(--background-fill-primary); }
#instances :is(td, th, span) { font-family: var(--font); font-variant-numeric: tabular-nums; }
.hint { color: var(--body-text-color-subdued); font-size: 0.9em; }
progress { width: 100%; height: 0.7rem; accent-color: var(--color-accent); }
#facts .html-container, #model_facts .html-container, #video_facts .html-container { padding: 0 !important; }
#instances .selection-button { display: none; }
/* Gradio cuts a video in the browser, for which it fetches a program. */
#video [aria-label^='Trim'], #video [aria-label^='Reset'] { display: none; }
#result_picture img { cursor: pointer; object-fit: contain; }
.downloads button { min-width: 8rem !important; }
button:focus-visible, input:focus-visible, [tabindex]:focus-visible, a:focus-visible {
  outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
@media (max-width: 640px) {
  .gradio-container { padding: 0.5rem !important; }
  #head h1 { font-size: 1.35rem; }
  #head { grid-template-columns: 1fr; }
  .links p { text-align: left; }
  #result_picture, #video_result { height: auto !important; min-height: 0 !important; }
  #instances :is(td, th, span) { font-size: 0.75rem; }
  .tab > .column, .tab > .column > .form { display: contents; }
  .tab > .column > * { flex: 1 1 100% !important; max-width: 100%; order: 1; }
  .tab .settings { order: 2 !important; }
}
@media (prefers-reduced-motion: reduce) { * { animation-duration: 0.01ms !important; transition: none !important; } }
'''


def theme() -> gr.themes.Base:
    """Gradio's soft theme in the project's colours."""
    return gr.themes.Soft(primary_hue=gr.themes.colors.indigo, secondary_hue=gr.themes.colors.blue,
                          neutral_hue=gr.themes.colors.slate, radius_size=gr.themes.sizes.radius_md,
                          font=[gr.themes.Font(name) for name in FONTS],
                          font_mono=[gr.themes.Font(name) for name in MONOSPACE])
