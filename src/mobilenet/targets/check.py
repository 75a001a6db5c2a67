"""The rules of a target applied to networks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..architectures import Block, Network
from ..errors import UsageError
from ..models import MODELS, ModelSpec
from .rules import CALLED, RULES, Effect, Feature, Rule


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that a network meets, at `places` of it (none where the rule is about any network)."""

    feature: Feature
    effect: Effect
    places: tuple[str, ...]
    says: str
    instead: str
    source: str


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """What is known of a network on a target. `untroubled` are the networks, at the same width,
    of which no rule speaks but those about any network."""

    target: str
    model: str
    width: float
    findings: tuple[Finding, ...]
    untroubled: tuple[str, ...]


def check_target(target: str, spec: ModelSpec) -> TargetReport:
    """Apply a target's rules. Raises UsageError for an unknown target."""
    if target not in RULES:
        raise UsageError(f"target {target!r}: expected one of {', '.join(RULES)}")
    return TargetReport(
        target=target,
        model=spec.name,
        width=spec.width,
        findings=tuple(_findings(RULES[target], spec.network())),
        untroubled=tuple(
            name for name, model in MODELS.items() if _untroubled(target, model, spec)
        ),
    )


def _untroubled(target: str, model: ModelSpec, like: ModelSpec) -> bool:
    network = ModelSpec(name=model.name, width=like.width).network()
    return all(found.feature == "any" for found in _findings(RULES[target], network))


def _findings(rules: tuple[Rule, ...], network: Network) -> Iterator[Finding]:
    features = places_of(network)
    for rule in rules:
        places = features[rule.feature]
        if places or rule.feature == "any":
            yield Finding(
                feature=rule.feature,
                effect=rule.effect,
                places=places,
                says=rule.says,
                instead=rule.instead,
                source=rule.source,
            )


def places_of(network: Network) -> Mapping[Feature, tuple[str, ...]]:
    """Where a network has what the rules are about: blocks counted from the stem, 0, and the head's
    hidden layer."""
    hidden = (
        ("head.hidden",)
        if network.hidden is not None and network.hidden_activation == "hard_swish"
        else ()
    )
    named = {f"blocks.{index}": block for index, block in enumerate(network.blocks)}
    return {
        "any": (),
        "hard_swish": (
            *(name for name, block in named.items() if block.activation == "hard_swish"),
            *hidden,
        ),
        "squeeze_excite": tuple(name for name, block in named.items() if block.squeeze),
        "kernel_5x5": tuple(name for name, block in named.items() if block.kernel == 5),
        "channels_4": tuple(name for name, block in named.items() if _uneven(block)),
    }


def _uneven(block: Block) -> bool:
    return any(channels % 4 for channels in (block.expanded, block.out_channels))


def describe(report: TargetReport) -> list[str]:
    """The report as lines for people."""
    lines = [f"{report.target}: {report.model} {report.width:g}"]
    for found in report.findings:
        where = f" in {len(found.places)} places ({_some(found.places)})" if found.places else ""
        lines += [
            f"  {found.effect:<10}{CALLED[found.feature]}{where}",
            f"            {found.says}",
            f"            instead: {found.instead}",
            f"            source: {found.source}",
        ]
    others = ", ".join(report.untroubled) or "none"
    return [*lines, f"networks that no rule but the general ones speaks of: {others}"]


def _some(places: tuple[str, ...]) -> str:
    return ", ".join(places[:3]) + (" ..." if len(places) > 3 else "")
