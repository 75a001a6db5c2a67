"""What benchmarks/scenes.py measured, as a table and curves."""

import json
from pathlib import Path

START, END = "<!-- scenes: start -->", "<!-- scenes: end -->"
PRIMARY = {"detect": "mAP", "segment": "mIoU"}
OTHERS = {"detect": ("mAP50", "AR"), "segment": ("pixel_accuracy", "boundary_F")}


def write(cache: Path, docs: Path) -> None:
    """Put the table into docs/tasks.md, between its two marks, and the curves beside it."""
    results = [json.loads(path.read_text()) for path in sorted(cache.glob("*.json"))]
    page = docs / "tasks.md"
    text = page.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    page.write_text(before + START + "\n" + table(results) + "\n" + END + after)
    (docs / "tasks.svg").write_text(curves(results))


def table(results: list[dict]) -> str:
    """A line a run."""
    lines = [
        "| task | side | minutes | seed | pictures seen | figure (95 %) | others |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in sorted(results, key=lambda r: (r["task"], r["minutes"], r["seed"], r["side"])):
        primary = PRIMARY[one["task"]]
        low, high = one["interval"]
        others = ", ".join(
            f"{name} {100 * one['figures'][name]:.1f} %" for name in OTHERS[one["task"]]
        )
        lines.append(
            f"| {one['task']} | {one['side']} | {one['minutes']:g} | {one['seed']} | "
            f"{one['pictures']:,} | {primary} **{100 * one['figures'][primary]:.1f} %** "
            f"({100 * low:.1f}–{100 * high:.1f}) | {others} |"
        )
    machine = results[0]["conditions"]
    each = machine["threads_each"]
    lines += [
        "",
        f"{machine['cpu']}, both sides at the same time with {each} thread{'s' * (each > 1)} each, "
        f"{results[0]['n']} test pictures.",
    ]
    return "\n".join(lines)


def curves(results: list[dict]) -> str:
    """The validation figure over minutes, a plot a task."""
    tasks = sorted({one["task"] for one in results})
    width, height, tones = 420, 260, {"mobilenet": "#1f5fbf", "torchvision": "#c2571a"}
    parts = []
    for place, task in enumerate(tasks):
        own = [one for one in results if one["task"] == task]
        last = max(one["minutes"] for one in own)
        top = max([value for one in own for _, value in one["curve"]] + [0.05]) * 1.1
        left, right, foot, head = 50 + place * width, width - 15 + place * width, height - 40, 30
        parts.append(f'<text x="{left}" y="18" font-weight="600">{task}: validation '
                     f"{PRIMARY[task]} over minutes</text>")  # fmt: skip
        for share in (0, 0.5, 1):
            y = foot - share * (foot - head)
            parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" '
                         'stroke="#ddd"/>')  # fmt: skip
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
                         f"{100 * share * top:.0f} %</text>")  # fmt: skip
            x = left + share * (right - left)
            parts.append(f'<text x="{x:.1f}" y="{foot + 18}" text-anchor="middle">'
                         f"{share * last:g}</text>")  # fmt: skip
        for one in own:
            points = " ".join(
                f"{left + minute / last * (right - left):.1f},"
                f"{foot - value / top * (foot - head):.1f}"
                for minute, value in one["curve"]
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" '
                         f'stroke="{tones[one["side"]]}"/>')  # fmt: skip
        for row, (side, tone) in enumerate(tones.items()):
            parts.append(f'<text x="{right}" y="{foot - 24 + 16 * row}" text-anchor="end" '
                         f'fill="{tone}">{side}</text>')  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(tasks)} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "".join(parts)
        + "</svg>\n"
    )
