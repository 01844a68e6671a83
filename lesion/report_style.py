"""How a report looks, and the script that sorts its table.

`CASE_STYLE` also serves in notebooks: its colours are mixed from the text's own, so that it suits
any page, light or dark.
"""

import base64
import hashlib

CASE_STYLE = """
.lesion-case { --quiet: color-mix(in srgb, currentColor 72%, transparent);
  --line: color-mix(in srgb, currentColor 20%, transparent);
  --track: color-mix(in srgb, currentColor 12%, transparent);
  --fill: #3b82c4; font-size: .9375rem; line-height: 1.45; }
.lesion-case h2 { margin: 0; font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; }
.lesion-case h3 { margin: 0 0 .3rem; font-size: .9375rem; font-weight: 600; }
.lesion-case .about { margin: 0 0 .75rem; color: var(--quiet); overflow-wrap: anywhere; }
.lesion-case .parts { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; }
.lesion-case .pictures { flex: 1 1 16rem; max-width: 24rem; display: grid; gap: 1rem;
  align-content: start; }
.lesion-case .facts { flex: 3 1 18rem; display: grid; gap: 1rem 1.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.lesion-case figure { margin: 0; }
.lesion-case img { display: block; width: 100%; height: auto; border-radius: .25rem; }
.lesion-case figcaption { margin-top: .3rem; color: var(--quiet); }
.lesion-case section + section { margin-top: 1rem; }
.lesion-case .bars { margin: 0; padding: 0; list-style: none; display: grid;
  grid-template-columns: minmax(0, max-content) minmax(5rem, 1fr) max-content;
  gap: .15rem .6rem; align-items: center; }
.lesion-case .bars li { display: contents; }
.lesion-case .track { height: .7em; background: var(--track); border-radius: .2em;
  overflow: hidden; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.lesion-case .fill { display: block; height: 100%; background: var(--fill); }
.lesion-case .value, .lesion-case dd { font-variant-numeric: tabular-nums; text-align: right; }
.lesion-case dl { margin: 0; }
.lesion-case dl div { display: flex; justify-content: space-between; gap: 1rem; }
.lesion-case dt { color: var(--quiet); }
.lesion-case dd { margin: 0; white-space: nowrap; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .4em;
  border: 1px solid color-mix(in srgb, currentColor 40%, transparent); border-radius: .15em;
  vertical-align: -.05em;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.lesion-case .warnings { margin: .75rem 0 0; padding: .5rem .75rem .5rem 1.75rem;
  background: color-mix(in srgb, #e69f00 20%, transparent); border-radius: .35rem; }
.lesion-case .small { margin: .4rem 0 0; color: var(--quiet); font-size: .875rem; }
"""

_PAGE_STYLE = """
:root { color-scheme: light; --page: #f5f5f3; --card: #fff; --text: #1c1c1a; --soft: #5c5c57;
  --rule: #d6d6d0; --alert: #fff3d6; --alert-text: #5c3d00; --link: #0b5cad; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --page: #151515; --card: #212121; --text: #ececea; --soft: #a9a9a4;
    --rule: #3d3d3a; --alert: #3b2f10; --alert-text: #ffdf9c; --link: #8cc4ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.notice { margin: 0; padding: .6rem 1rem; background: var(--alert); color: var(--alert-text);
  font-weight: 600; text-align: center; }
main, footer { max-width: 90rem; margin: 0 auto; padding: 1rem; }
h1 { margin: .5rem 0 0; font-size: 1.5rem; line-height: 1.25; }
.summary { margin: .25rem 0 1rem; color: var(--soft); }
.failed { margin: 0 0 1rem; padding: .5rem .75rem; list-style: none; background: var(--alert);
  color: var(--alert-text); border-radius: .35rem; overflow-wrap: anywhere; }
.pages { display: flex; flex-wrap: wrap; gap: .3rem .8rem; margin: 0 0 1rem; padding: 0;
  list-style: none; }
.pages [aria-current] { font-weight: 700; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: .5rem; margin-bottom: 1.5rem; }
.cases { border-collapse: collapse; width: 100%; font-size: .9375rem; }
.cases th, .cases td { padding: .4rem .6rem; text-align: left; vertical-align: middle;
  border-bottom: 1px solid var(--rule); }
.cases tbody tr:last-child > * { border-bottom: 0; }
.cases thead th { color: var(--soft); font-size: .875rem; font-weight: 600;
  vertical-align: bottom; }
.cases tbody th { font-weight: 400; max-width: 16rem; overflow-wrap: break-word; }
.cases td { white-space: nowrap; }
.cases .number { text-align: right; font-variant-numeric: tabular-nums; }
.cases img { display: block; width: 5rem; height: 3.75rem; object-fit: contain; }
.cases button { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  text-align: inherit; cursor: pointer; }
.cases button::after { content: "\\2195"; margin-left: .35em; opacity: .6; }
.cases [aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
.cases [aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
article { margin-bottom: 1rem; padding: 1rem; background: var(--card);
  border: 1px solid var(--rule); border-radius: .5rem; break-inside: avoid; }
article:target { outline: 2px solid var(--link); }
footer { color: var(--soft); font-size: .875rem; }
footer h2 { margin: 0 0 .25rem; font-size: 1rem; }
footer dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem 1rem;
  margin: 0 0 1rem; }
footer dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { main, footer { padding: .75rem; }
  footer dl { grid-template-columns: 1fr; } footer dt { font-weight: 600; } }
@media print { body { background: none; font-size: 10pt; } main, footer { max-width: none; }
  .scroll { overflow: visible; } .cases, .cases thead th { font-size: 7pt; }
  .cases th, .cases td { padding: .15rem; } .cases img { width: 3.2rem; height: 2.4rem; }
  .cases button::after { content: ""; } .cases tr { break-inside: avoid; }
  .lesion-case .parts { flex-wrap: nowrap; } }
"""

SCRIPT = """
for (const header of document.querySelectorAll(".cases thead th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener("click", () => {
    const rising = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const value = row => row.cells[header.cellIndex].dataset.value;
    const compare = (a, b) => header.dataset.sort === "number" ? a - b
      : a.localeCompare(b, undefined, {numeric: true});
    const body = header.closest("table").tBodies[0];
    const rows = [...body.rows].sort((first, second) => {
      const [a, b] = [value(first), value(second)];
      if (!a || !b) return !a - !b;
      return rising ? compare(a, b) : compare(b, a);
    });
    body.append(...rows);
  });
}
"""

# The policy makes a browser refuse whatever the file should not need: fonts, the network, any
# script but this one. `{pictures}` is where pictures may come from.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src {pictures};
 style-src 'unsafe-inline'; script-src 'sha256-{script}'">
<title>{title}</title>
<style>{style}</style>
</head>
"""


def head(title: str, linked: bool) -> str:
    """The beginning of a page, up to its body.

    Args:
        title: escaped.
        linked: whether pictures lie beside the page; otherwise they must be in it.
    """
    digest = hashlib.sha256(SCRIPT.encode()).digest()
    return _HEAD.format(
        pictures="data: file: 'self'" if linked else "data:",
        script=base64.b64encode(digest).decode("ascii"),
        title=title,
        style=_PAGE_STYLE + CASE_STYLE,
    )
