from __future__ import annotations

from report.sample import run, study

from bancache.report import generations_table
from bancache.report.finding import Finding, find


def found(*errors: tuple[float, float]) -> Finding:
    """The finding for seeds with these errors of baseline and BAN-1."""
    records = [run(g, seed, pair[g]) for seed, pair in enumerate(errors) for g in (0, 1)]
    return find(generations_table(records))


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_a_gain_whose_interval_leaves_zero_out_is_called_less() -> None:
    finding = find(generations_table(study()))
    assert plain(finding.title) == "BAN-1 errs less than its baseline: 56.40 % against 58.10 %"
    first, others, control = finding.sentences
    assert plain(first) == (
        "Paired over 3 seeds, BAN-1's error differs from the baseline's by -1.70 points "
        "(95 % interval -2.94 to -0.46). It errs less here."
    )
    assert plain(others) == (
        "The others, against the same baseline: BAN-2 -1.15 points (-1.79 to -0.51); Ens*2 -3.10 points."
    )
    assert control.startswith("No net without a teacher was trained beside them (--control), so whether")


def test_a_loss_is_said_as_plainly_as_a_gain() -> None:
    finding = found((0.40, 0.45), (0.41, 0.46), (0.42, 0.471))
    assert plain(finding.title) == "BAN-1 errs more than its baseline: 46.03 % against 41.00 %"
    assert finding.sentences[0].endswith("It errs more here.")


def test_an_interval_around_zero_shows_nothing_and_says_so() -> None:
    finding = found((0.40, 0.38), (0.40, 0.41))
    assert (
        plain(finding.title) == "No clear difference between BAN-1 and its baseline: 39.50 % against 40.00 %"
    )
    assert "do not show whether it helps" in finding.sentences[0]


def test_one_seed_is_never_called_a_gain() -> None:
    finding = found((0.40, 0.30))
    assert plain(finding.title) == (
        "One seed only: BAN-1 errs on 30.00 % of the test images, its baseline on 40.00 %"
    )
    assert finding.sentences[0].endswith("one seed cannot tell an effect from chance.")


def test_several_comparisons_are_counted_and_each_gets_its_sentence() -> None:
    records = [*study(), run(1, 0, 0.60, loss="kd"), run(1, 1, 0.57, loss="kd"), run(1, 0, 0.5, loss="cwtm")]
    finding = find(generations_table(records))
    assert finding.title == (
        "3 comparisons of the first generation with its baseline: 1 better, 1 not clear, 1 with one seed only"
    )
    assert [sentence.split(".")[0] for sentence in finding.sentences] == [
        "resnet-8 ban-l",
        "resnet-8 kd",
        "resnet-8 cwtm",
    ]


def test_without_a_pair_there_is_a_number_but_no_comparison() -> None:
    finding = find(generations_table([run(0, 0, 0.4), run(1, 1, 0.3)]))
    assert plain(finding.title) == "resnet-8 baseline errs on 40.00 % of the test images"
    assert "nothing to compare" in finding.sentences[0]


def test_without_any_net_the_finding_says_so() -> None:
    assert find(generations_table([])).title == "No net has been tested yet"
