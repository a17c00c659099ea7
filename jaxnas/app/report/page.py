"""Pieces of a page that is one file: HTML and charts as text, without scripts from elsewhere; light, dark and on paper.

What these functions are given as text they escape; what they return is HTML.  Equal arguments give equal text.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

WIDTH, HEIGHT = 480, 310  # of a chart, in units that are about a pixel on a small screen
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 44  # its margins

SPACE = "\N{NO-BREAK SPACE}"

STYLE = """
:root{--bg:#fff;--panel:#f5f7f9;--ink:#1a1f24;--soft:#55606b;--line:#d3d9df;--s0:#0072b2;--s1:#c85500;--s2:#00805a;
--good:#00694c;--bad:#b3261e;--on:#fff;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--bg:#11161b;--panel:#1a2127;--ink:#e7edf2;--soft:#a3afba;--line:#38434d;--s0:#5db8ef;
--s1:#f2995a;--s2:#3cc79b;--good:#4fd1a5;--bad:#ff8f85;--on:#11161b}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:20px 16px 48px}
h1{font-size:1rem;font-weight:600;color:var(--soft);margin:0 0 8px;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:40px 0 8px;padding-top:14px;border-top:1px solid var(--line)}h3{font-size:1rem;margin:18px 0 6px}
p{margin:8px 0;max-width:75ch}.lead{font-size:1.35rem;line-height:1.35;font-weight:600;max-width:48ch;overflow-wrap:anywhere}
.soft,figcaption,caption{color:var(--soft);font-size:.875rem}
figure{margin:12px 0;min-width:0}figcaption{max-width:75ch}
.two{display:grid;gap:8px 32px;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));align-items:start}
.scroll{overflow-x:auto}.scroll:focus-visible{outline:2px solid var(--s0)}
svg{display:block;width:100%;height:auto;max-width:560px;font:13px system-ui,sans-serif}
svg text{fill:var(--ink)}svg .t{fill:var(--soft);font-size:12px}svg .g{stroke:var(--line);stroke-width:1}
svg .b{font-weight:600;paint-order:stroke;stroke:var(--bg);stroke-width:4px;stroke-linejoin:round}
svg .z{stroke:var(--soft);stroke-width:1.5}.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}svg .good{fill:var(--good)}svg .bad{fill:var(--bad)}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}caption{text-align:left;padding:0 0 6px}
th,td{padding:5px 14px 5px 0;text-align:right;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600}thead th{vertical-align:bottom}th button{all:unset;cursor:pointer;text-decoration:underline dotted}
th button:focus-visible{outline:2px solid var(--s0)}.l{text-align:left}td code{display:block;min-width:19em}
.n{white-space:nowrap;font-size:inherit}
code,pre{font:.8125rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:10px 12px;margin:8px 0;white-space:pre-wrap}
.tiles{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(30%,118px),1fr))}
.tiles figure{margin:0}.tiles img{width:100%;aspect-ratio:1;object-fit:contain;background:var(--panel);image-rendering:pixelated}
.tiles figcaption{line-height:1.3;overflow-wrap:anywhere}
img.wide{max-width:100%;height:auto;background:#fff;border-radius:6px}
img.drawing{display:block;width:100%;min-width:560px;max-width:864px;background:#fff;border-radius:6px}
@media(max-width:600px){.lead{font-size:1.2rem}th,td{padding-right:9px}td code{white-space:nowrap}
.answer table{font-size:.75rem}.answer th,.answer td{padding-right:7px}}
@media print{:root{--bg:#fff;--panel:#fff;--ink:#000;--soft:#444;--line:#bbb;--s0:#0072b2;--s1:#c85500;--s2:#00805a;--good:#00694c;
--bad:#b3261e;--on:#fff}main{max-width:none;padding:0}.scroll{overflow:visible}figure,tr{break-inside:avoid}h2{break-after:avoid}}
"""

SCRIPT = """
for(const t of document.querySelectorAll("table.sorts")){const heads=[...t.querySelectorAll("thead th")];heads.forEach((h,i)=>{
const b=document.createElement("button");b.append(...h.childNodes);h.append(b);b.onclick=()=>{
const up=h.getAttribute("aria-sort")==="descending",sign=up?1:-1;
const key=r=>{const v=r.cells[i].dataset.v??r.cells[i].textContent;return v==="-inf"?-Infinity:v===""||isNaN(v)?v:+v};
heads.forEach(o=>o.removeAttribute("aria-sort"));h.setAttribute("aria-sort",up?"ascending":"descending");
const rows=[...t.tBodies[0].rows].sort((p,q)=>{const a=key(p),b=key(q);return sign*(a<b?-1:a>b?1:0)});
t.tBodies[0].append(...rows)}})}
"""


def escape(text: Any) -> str:
    """Text as HTML shows it, in attributes too."""
    return html.escape(str(text), quote=True)


def short(n: float | None) -> str:
    """A count with three digits: 7.01 k, 351 k, 1.2 M."""
    if n is None or not math.isfinite(n):
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= 0.9995 * size:
            return f"{n / size:.3g}{SPACE}{unit}"
    return f"{n:.3g}"


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    body = "\n".join(p for p in parts if p)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><main>\n{body}\n</main><script>{SCRIPT}</script></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it; nothing where that is nothing."""
    body = "\n".join(p for p in parts if p)
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>" if body else ""


def text(words: str, kind: str = "") -> str:
    """A paragraph."""
    words = escape(words).replace(" %", f"{SPACE}%")
    return f'<p class="{kind}">{words}</p>' if kind else f"<p>{words}</p>"


def figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str, left: Sequence[int] = (0,), sorts: bool = False
) -> str:
    """A table that scrolls sideways where it is too wide.

    Args:
        head: the columns' names.
        rows: cells: HTML, or pairs (HTML, the number or text to sort by).
        caption: says what it is.
        left: columns that hold words.
        sorts: by a click on a column's name, where scripts run.
    """
    side = lambda i: ' class="l"' if i in left else ""
    cell = lambda c, i: f"<td{side(i)}>{c}</td>" if isinstance(c, str) else f'<td{side(i)} data-v="{escape(c[1])}">{c[0]}</td>'
    heads = "".join(f'<th scope="col"{side(i)}>{escape(name)}</th>' for i, name in enumerate(head))
    body = "\n".join(f"<tr>{''.join(cell(c, i) for i, c in enumerate(row))}</tr>" for row in rows)
    kind = ' class="sorts"' if sorts else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table{kind}><caption>{escape(caption)}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(pixels: np.ndarray, most: int = 96) -> str:
    """A data URI of an image [H, W, C] with values in 0 to 1; one that is larger than `most` is thinned out."""
    from PIL import Image

    step = max(1, math.ceil(max(pixels.shape[:2]) / most))
    pixels = pixels[::step, ::step, : 3 if pixels.shape[-1] >= 3 else 1]
    levels = np.round(255 * np.clip(np.nan_to_num(pixels), 0, 1)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels).save(out, "png", optimize=True)
    return data_uri("image/png", out.getvalue())


# --- charts -----------------------------------------------------------------------------------------------------------


def svg(label: str, parts: Iterable[str], height: float = HEIGHT, width: float = WIDTH) -> str:
    """A drawing that says in words what it shows."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def label(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, kind: str = "g") -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{kind}"/>'


def ticks(low: float, high: float, log: bool = False) -> list[float]:
    """About five round numbers between low and high."""
    if log:
        for steps in ((1,), (1, 3), (1, 2, 5)):
            found = [s * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for s in steps]
            found = [t for t in found if low <= t <= high]
            if len(found) >= 3:
                return found[:: math.ceil(len(found) / 6)]
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(s for s in (1, 2, 5, 10) if s * size >= raw * 0.999)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Plane(NamedTuple):
    """The coordinates of a chart."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False  # x

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is drawn; one that is outside, on the edge."""
        low, value, high = (math.log10(v) if self.log else v for v in (self.x[0], max(x, self.x[0]), self.x[1]))
        share_x, share_y = (value - low) / (high - low), (y - self.y[0]) / (self.y[1] - self.y[0])
        inside = lambda share: min(max(share, 0.0), 1.0)
        return LEFT + inside(share_x) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - inside(share_y) * (HEIGHT - TOP - BOTTOM)

    def frame(self, xlabel: str, ylabel: str) -> list[str]:
        """Grid, numbers and names of the axes."""
        parts = [label(4, 13, ylabel, kind="t"), label(WIDTH - RIGHT, HEIGHT - 6, xlabel, "end", "t")]
        for v in ticks(*self.y):
            _, y = self.at(self.x[0], v)
            parts += [line(LEFT, y, WIDTH - RIGHT, y), label(LEFT - 6, y + 4, f"{v:.6g}", "end", "t")]
        for v in ticks(*self.x, self.log):
            x, _ = self.at(v, self.y[0])
            parts += [line(x, TOP, x, HEIGHT - BOTTOM), label(x, HEIGHT - BOTTOM + 16, short(v), "middle", "t")]
        return parts


def around(values: Iterable[float], share: float = 0.06, log: bool = False) -> tuple[float, float]:
    """A range with some room around finite values."""
    low, high = min(values := list(values)), max(values)
    if log:
        room = max((high / low) ** share, 1.15)
        return low / room, high * room
    room = share * (high - low) or max(abs(high) * share, 0.5)
    return low - room, high + room


def mark(series: int, x: float, y: float, hint: str, *, hollow: bool = False, size: float = 4.5) -> str:
    """A point: its series has a colour and a form; `hint` is shown where the pointer rests."""
    fill = "var(--bg)" if hollow else "currentColor"
    s, style = size, f'fill="{fill}" stroke="currentColor" stroke-width="1.5" class="s{series % 3}"'
    forms = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{s:g}" {style}>',
        f'<path d="M{x:.1f} {y - s - 1:.1f}l{s + 1:g} {s + 1:g}l{-s - 1:g} {s + 1:g}l{-s - 1:g} {-s - 1:g}z" {style}>',
        f'<rect x="{x - s:.1f}" y="{y - s:.1f}" width="{2 * s:g}" height="{2 * s:g}" {style}>',
    )
    form = forms[series % 3]
    return f"{form}<title>{escape(hint)}</title></{form[1 : form.index(' ')]}>"


def path(points: Iterable[tuple[float, float]], series: int, dash: str = "", width: float = 2) -> str:
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{d}" fill="none" stroke="currentColor" stroke-width="{width:g}" class="s{series % 3}"{dash}/>'


def legend(names: Sequence[str], y: float = 9) -> list[str]:
    """Series and their names, at the upper right."""
    parts, x = [], WIDTH - RIGHT
    for n, name in reversed(list(enumerate(names))):
        x -= 7.2 * len(name)
        parts += [label(x, y + 4, name), mark(n, x - 10, y, name)]
        x -= 30
    return parts


def named_points(points: Sequence[tuple[float, float, str]]) -> list[str]:
    """Names beside points (x, y, name), each where it hides no other name or point, if there is such a place."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    parts = []
    for x, y, name in points:
        wide = 8.2 * len(name)
        places = [(x + 10, y + 4), (x - 10 - wide, y + 4), (x - wide / 2, y - 12), (x - wide / 2, y + 22)]
        places += [(x + 10, y - 12), (x + 10, y + 22), (x - 10 - wide, y - 12), (x - 10 - wide, y + 22)]
        boxes = [(a, b - 12, a + wide, b + 3) for a, b in places]
        crossed = lambda p, q: max(0, min(p[2], q[2]) - max(p[0], q[0])) * max(0, min(p[3], q[3]) - max(p[1], q[1]))
        outside = lambda p: max(0, LEFT - p[0]) + max(0, p[2] - WIDTH) + max(0, p[3] - HEIGHT + BOTTOM) + max(0, TOP - p[1])
        cost = [sum(crossed(box, other) for other in taken) + 50 * outside(box) for box in boxes]
        best = cost.index(min(cost))
        taken.append(boxes[best])
        parts.append(label(*places[best], name, kind="b"))
    return parts
