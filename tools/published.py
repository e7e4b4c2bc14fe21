"""The paper's tables of parameters and FLOPs, compared with those of this package's networks."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from dsanet.complexity import View, count_model


@dataclass(frozen=True)
class Published:
    """A row of the paper: table, network, one view, views per video, and the cost in G."""

    source: str
    model: str
    view: View
    views: float
    giga: str


@dataclass(frozen=True)
class PublishedSize:
    """A row of Table 2a: the parameters of a network with 200 classes, in millions."""

    model: str
    millions: str


T4, T8 = View(4, 4), View(4, 8)
COSTS = (
    Published("2i", "tsn_i3d_r50", T4, 1, "83.8"),
    Published("2i", "v4d_i3d_r50", T4, 1, "143.0"),
    Published("2i", "dsa_i3d_r50", T4, 1, "83.8"),
    Published("4", "tsm_r50", View(1, 8), 30, "990"),
    Published("4", "i3d_r50", View(1, 8), 30, "1257"),
    Published("4", "v4d_i3d_r50", T8, 7.5, "2146"),
    Published("4", "dsa_i3d_r50", T4, 6, "503"),
    Published("4", "dsa_i3d_r50", T8, 6, "1006"),
)
ENSEMBLE = "1509"  # Table 4's (4+8): the sum of the last two rows
SIZES = (
    PublishedSize("i3d_r18", "32.3"),
    PublishedSize("tsn_i3d_r18", "32.3"),
    PublishedSize("v4d_i3d_r18", "33.1"),
    PublishedSize("dsa_i3d_r18", "32.3"),
)
NOTES = """\
[bold]MACs[/bold]: multiply-adds of convolutions and linear layers (half of what torch's \
FlopCounterMode counts) and of DSA. [bold]As the paper counts[/bold]: 2 more for each element that \
a batch norm writes, which gives the paper's figures. The paper computes test costs for crops of \
224 pixels but tests at 256: the last column is the cost of a test. TSM's 990 is 30 times a \
rounded 33. V4D's 10 clips are counted as 2.5 groups of 4; a real test takes 8 or 12 clips.
R18: the released network has 31.92 M parameters, not 32.3 M. Inflating the shortcuts of res4 and \
res5 too (option inflate_shortcuts) gives 32.25 M, a likely origin. The default follows the \
released code.
[bold]*[/bold] has details that the paper does not specify: U, T and the place of DSA in TSM, the \
place and ratio of SE, the norm, initialisation and place of V4D (docs/models.md)."""
UNSPECIFIED = ("dsa_tsm", "se_", "v4d_")


def costs_table() -> Table:
    """A table of the cost of all views of a video: the paper's figures and this package's."""
    names = (
        "Table",
        "network",
        "U x T",
        "views",
        "paper",
        "as the paper counts",
        "MACs",
        "MACs at 256",
    )
    table = new_table("Cost of a video in G (400 classes, crops of 224)", names)
    ensemble = 0.0
    for row in COSTS:
        cost = count_model(row.model, 400, row.view)
        large = count_model(row.model, 400, View(row.view.segments, row.view.frames, 256))
        table.add_row(
            row.source,
            marked(row.model),
            f"{row.view.segments} x {row.view.frames}",
            f"{row.views:g}",
            row.giga,
            giga(cost.paper * row.views),
            giga(cost.multiply_adds * row.views),
            giga(large.multiply_adds * row.views) if row.views > 1 else "",
        )
        ensemble += cost.paper * row.views if row.giga in ("503", "1006") else 0
    table.add_row("4", "sum of the last two", "", "", ENSEMBLE, giga(ensemble), "", "")
    return table


def sizes_table() -> Table:
    """A table of parameters: the paper's Table 2a and this package's networks."""
    names = ("network", "paper", "released network", "with inflated shortcuts")
    table = new_table("Parameters in M (200 classes, Table 2a)", names)
    for row in SIZES:
        plain = count_model(row.model, 200, T4).parameters
        wide = count_model(row.model, 200, T4, inflate_shortcuts=True).parameters
        table.add_row(marked(row.model), row.millions, f"{plain / 1e6:.2f}", f"{wide / 1e6:.2f}")
    return table


def new_table(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table, with figures aligned to the right."""
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="left" if name == "network" else "right")
    return table


def marked(name: str) -> str:
    """The name, with a star if the paper does not specify the network fully."""
    return f"{name} *" if name.startswith(UNSPECIFIED) else name


def giga(count: float) -> str:
    """A count in units of 10^9, with at least as many digits as the paper prints."""
    return f"{count / 1e9:,.2f}" if count < 1e12 else f"{count / 1e9:,.0f}"
