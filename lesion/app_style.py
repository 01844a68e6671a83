"""How the page looks, besides what it shares with the report."""

from lesion.attribute_overlay import ATTRIBUTE_LABELS

# One rule for each outline hides it while its box is not ticked.
_SWITCHES = "".join(
    f'.lesion-result:has(input[name="{name}"]:not(:checked)) [data-layer="{name}"] '
    "{ display: none; }\n"
    for name in ("boundary", *ATTRIBUTE_LABELS)
)

PAGE_STYLE = (
    """
.gradio-container { --notice: #fff3d6; --notice-text: #5c3d00; --error: #fde5e1;
  --error-text: #7a1a0c; --link: #0b5cad; --button-text: #fff; }
.dark .gradio-container, .gradio-container.dark, body.dark { --notice: #3b2f10;
  --notice-text: #ffdf9c; --error: #4a1d16; --error-text: #ffc9bf; --link: #8cc4ff;
  --button-text: #10202f; color-scheme: dark; }
/* What clips scrolls, too, and would keep the notice from sticking to the window. */
.gradio-container { overflow: clip !important; }
.gradio-container .html-container { padding: 0; }
#notice { position: sticky; top: 0; z-index: 50; overflow: visible; border-radius: 0;
  padding-top: .5rem !important; background: var(--body-background-fill); }
/* Gradio's messages leave the notice free. */
.toast-wrap { top: 5rem !important; }
.lesion-notice { margin: 0; padding: .55rem 1rem; background: var(--notice);
  color: var(--notice-text); font-weight: 600; text-align: center; border-radius: .5rem; }
.lesion-title { margin: .25rem 0 0; font-size: 1.5rem; line-height: 1.25; font-weight: 650; }
.lesion-hint { margin: 0; font-size: .875rem; opacity: .8; }
.lesion-error { margin: 0; padding: .7rem 1rem; border-radius: .5rem; background: var(--error);
  color: var(--error-text); font-weight: 600; overflow-wrap: anywhere; }
.lesion-result { padding: 1rem; border: 1px solid var(--line); border-radius: .5rem; }
.lesion-result header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: start;
  justify-content: space-between; margin-bottom: .75rem; }
.lesion-result header .about { margin: 0; }
.lesion-result .pictures { flex: 1 1 22rem; max-width: 40rem; }
.lesion-result .stack { position: relative; }
.lesion-result .stack svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.lesion-result path { fill: none; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.lesion-result .edge { stroke: #101010; stroke-width: 4; stroke-opacity: .65; }
.lesion-result .line { stroke: currentColor; stroke-width: 2.2; }
.lesion-result .dashed path { stroke-dasharray: 8 6; }
.lesion-result fieldset { margin: 0; padding: 0; border: 0; min-width: 0; display: grid;
  grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: 0 1rem; }
.lesion-result legend { padding: 0; font-weight: 600; }
.lesion-result label { display: inline-flex; align-items: center; min-height: 1.9rem;
  cursor: pointer; }
.lesion-result label:has(:disabled) { cursor: default; color: var(--quiet); }
.lesion-result input[type="checkbox"] { appearance: auto; width: 1.05rem; height: 1.05rem;
  margin: 0 .45rem 0 0; accent-color: var(--fill); }
.lesion-result .download { padding: .4rem .9rem; border-radius: .4rem; background: var(--link);
  color: var(--button-text); font-weight: 600; text-decoration: none; }
.lesion-result :focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media (max-width: 40rem) { .lesion-result { padding: .75rem; }
  .lesion-result .download { width: 100%; text-align: center; }
  .lesion-result .edge { stroke-width: 3; } .lesion-result .line { stroke-width: 1.6; } }
"""
    + _SWITCHES
)
