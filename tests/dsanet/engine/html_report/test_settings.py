"""Where the value of a setting comes from."""

from __future__ import annotations

from dsanet.engine.command_line import parse_train
from dsanet.engine.config import plain
from dsanet.engine.html_report.settings import Setting, settings_of


def run(*words: str) -> dict:
    return plain(parse_train(["--recipe", "demo", "--data", "d", "--out", "o", *words]))


def by_key(settings: list[Setting]) -> dict[str, Setting]:
    return {setting.key: setting for setting in settings}


def test_every_setting_has_its_source() -> None:
    rows = by_key(settings_of([run("--optim.lr", "0.125", "--log.every", "7")]))
    assert rows["optim.lr"].sources == ("given",)
    assert rows["optim.lr"].values == ("0.125",)
    assert rows["log.every"].sources == ("given",)
    assert rows["augment.size"].sources == ("recipe",)
    assert rows["loader.threads"].sources == ("default",)
    assert not rows["loader.threads"].notable
    assert rows["data"].sources == ("given",)


def test_a_default_given_against_the_recipe_is_given() -> None:
    default = parse_train(["--data", "d", "--out", "o", "--model", "m"]).augment.size
    rows = by_key(settings_of([run("--augment.size", str(default))]))
    assert rows["augment.size"].sources == ("given",)


def test_settings_of_two_runs_stand_side_by_side() -> None:
    rows = by_key(settings_of([run(), run("--seed", "3")]))
    assert rows["seed"].differs
    assert rows["seed"].values[1] == "3"
    assert not rows["optim.lr"].differs


def test_a_setting_that_an_older_run_lacks_is_null() -> None:
    older = run()
    del older["validation"]["bad_share"]
    rows = by_key(settings_of([run(), older]))
    assert rows["validation.bad_share"].values[1] == "null"
