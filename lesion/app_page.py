"""The page in a browser, made with gradio (the extra `demo`).

Nothing in it comes from elsewhere. Two things make sure of that whatever a future gradio does: the
theme names fonts of the system alone, and every answer carries a policy by which the browser
refuses any other server (`lesion.app_policy`). A page's uploads are deleted as
`lesion.app_uploads` says; its results are nowhere but in it.
"""

import gradio as gr
from starlette.middleware import Middleware

from lesion import NOTICE
from lesion.analyzer import Analyzer
from lesion.app_policy import Policy
from lesion.app_style import PAGE_STYLE
from lesion.app_uploads import Uploads
from lesion.app_view import FORMATS, MAX_UPLOAD, SUFFIXES, examine, is_result
from lesion.patient import SEXES, SITES
from lesion.report_style import CASE_STYLE

_TITLE = "Analysis of dermoscopic images"
# Analyses that may wait; whoever comes then is told to come back.
_MAX_WAITING = 8
_FONTS = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "sans-serif")]
_FIXED_FONTS = [gr.themes.Font(name) for name in ("ui-monospace", "monospace")]


def build_page(analyzer: Analyzer, uploads: Uploads, max_megapixels: float) -> gr.Blocks:
    """The page, not yet open.

    Args:
        analyzer: with its networks, which one analysis at a time goes through.
        uploads: of the folder that gradio writes uploads to (`GRADIO_TEMP_DIR`).
        max_megapixels: larger images are refused.
    """

    def opened(request: gr.Request):
        uploads.opened(request.session_hash)

    def received(path: str, request: gr.Request):
        uploads.received(request.session_hash, path)

    def analyze(path: str, age: str, sex: str, site: str, request: gr.Request):
        try:
            patient = {"age": age, "sex": sex, "site": site}
            html = examine(analyzer, path, max_megapixels, patient)
            # What is known of one patient must not be told of the next; a fault can be mended.
            facts = ("", "", "") if is_result(html) else (gr.skip(), gr.skip(), gr.skip())
            return html, None, *facts
        finally:
            uploads.done(request.session_hash, path)

    def closed(request: gr.Request):
        uploads.closed(request.session_hash)

    with gr.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gr.HTML(
            f'<p class="lesion-notice" role="note">{NOTICE}</p>', elem_id="notice", padding=False
        )
        gr.HTML(f'<h1 class="lesion-title">{_TITLE}</h1>', padding=False)
        # Before the image, whose analysis begins as soon as it is there.
        with gr.Row(visible=analyzer.takes_patients, elem_id="patient"):
            # A number's field would say 0 where nothing is known.
            age = gr.Textbox(label="Age of the patient in years, if known", max_length=5)
            sex = gr.Dropdown(["", *SEXES], value="", label="Sex")
            site = gr.Dropdown(["", *SITES], value="", label="Site of the lesion")
        upload = gr.File(
            label="Dermoscopic image",
            file_types=list(SUFFIXES),
            height=150,
            elem_id="upload",
        )
        limits = f"up to {MAX_UPLOAD // 2**20} MB and {max_megapixels:g} megapixels"
        gr.HTML(
            f'<p class="lesion-hint">{", ".join(FORMATS[:-1])} or {FORMATS[-1]}, {limits}. '
            "The file is deleted as soon as it has been analysed.</p>",
            padding=False,
        )
        result = gr.HTML(elem_id="result", padding=False, apply_default_css=False)
        quiet = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        upload.upload(received, upload, None, trigger_mode="multiple", **quiet)
        upload.upload(
            analyze,
            [upload, age, sex, site],
            [result, upload, age, sex, site],
            trigger_mode="multiple",
            api_visibility="private",
        )
        page.load(opened, None, None, **quiet)
        page.unload(closed)
    return page.queue(max_size=_MAX_WAITING, default_concurrency_limit=1)


def open_page(page: gr.Blocks, host: str, port: int, alone: bool = True) -> str:
    """Opens the page in the background, and gives its address.

    Args:
        page: from `build_page`.
        host: address to listen at.
        port: to listen at.
        alone: whether only this computer is meant to reach it.

    Raises:
        OSError: there can be no page at this host and port.
    """
    hosts = ("localhost", "127.0.0.1", "::1", host) if alone else None
    try:
        _, address, _ = page.launch(
            # Gradio wants IPv6 as addresses in a browser are written.
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=MAX_UPLOAD,
            theme=gr.themes.Default(font=_FONTS, font_mono=_FIXED_FONTS),
            css=CASE_STYLE + PAGE_STYLE,
            app_kwargs={"middleware": [Middleware(Policy, hosts=hosts)]},
        )
    except OSError as error:
        raise OSError(
            f"The page cannot be opened at {host}, port {port}: the port is in use, or the address "
            "is none of this computer's. Give others by --port and --host."
        ) from error
    return address
