"""The preview as one HTML file that loads nothing: facts, histogram, and the rows with their mask.

The rows are training text: everything is escaped, no script runs, and only the owner may read the
file.
"""

from __future__ import annotations

from pathlib import Path

from sft_core.documents.card import readable
from sft_core.documents.web_page import web_page
from sft_core.preview import Preview
from sft_core.store import writing


def write_preview(found: Preview, path: Path) -> None:
    """Write the page, in place of an older one.

    Raises:
        StorageError: the place cannot be written.
    """
    page = render_preview(found)
    with writing(path):
        path.touch(mode=0o600)
        path.write_text(page, encoding="utf-8")


def render_preview(found: Preview) -> str:
    """The page as text."""
    return web_page(
        "preview.html.jinja",
        ("page.css", "preview.css"),
        {"readable": readable, "size": size},
        found=found,
        facts=facts(found),
        special={token.text for token in found.special_tokens},
        most=max(part.num_rows for part in found.lengths),
    )


def facts(found: Preview) -> list[tuple[str, str]]:
    """Name and value of everything but rows, histogram and measurements, for people."""
    estimate = found.estimate
    special = ", ".join(f"{t.role} {t.text} ({t.id})" for t in found.special_tokens)
    ending = f"trained in {found.num_rows_ending:,} of {found.num_rows:,} rows"
    cut = f"{found.num_rows_cut:,} of {found.num_rows:,} to {found.max_length:,} tokens"
    if found.num_rows_cut:
        mean = found.num_cut_tokens / found.num_rows_cut
        cut += f", by {mean:,.1f} tokens on average; the longest has {found.longest_tokens:,}"
    rate = found.num_trained_tokens / found.num_tokens
    return [
        ("template", found.template),
        ("special tokens", special),
        ("end of turn", ending),
        ("tokens", f"{found.num_tokens:,}, of which {rate:.1%} are trained"),
        ("rows cut", cut),
        (
            "padding",
            f"{estimate.padding_rate:.1%} of what is computed, so {1 - estimate.padding_rate:.1%} "
            f"packed, in {estimate.num_sampled:,} batches",
        ),
        (
            "steps",
            f"{estimate.num_steps:,} updates, {estimate.num_batches:,} batches of "
            f"{estimate.tokens_per_batch:,.0f} tokens on average",
        ),
        ("time", _time(found)),
        ("memory", _memory(found)),
    ]


def _time(found: Preview) -> str:
    seconds = found.estimate.seconds
    if seconds is None:
        return "not measured: the largest batch was not tried"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    if seconds < 60:
        shown = f"{seconds:.1f} s"
    return (
        f"about {shown} of training steps ({found.estimate.device}), from timed steps; loading and "
        "held-out loss come on top"
    )


def _memory(found: Preview) -> str:
    estimate = found.estimate
    peak = "more" if estimate.peak_bytes is None else f"peak {size(estimate.peak_bytes)}"
    return f"{estimate.verdict}: {peak} of {size(estimate.available_bytes)}, {estimate.basis}"


def size(num_bytes: int) -> str:
    """Bytes for people, in GiB or MiB."""
    gib = num_bytes / 1024**3
    return f"{gib:,.2f} GiB" if gib >= 1 else f"{num_bytes / 1024**2:,.0f} MiB"
