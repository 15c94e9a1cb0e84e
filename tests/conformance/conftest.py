"""Who asks for a backend gets its verdict: the tests of the suite itself are of no backend."""


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--harness-backend"):
        return
    judged = [item for item in items if "target" in getattr(item, "fixturenames", ())]
    others = [item for item in items if item not in set(judged)]
    config.hook.pytest_deselected(items=others)
    items[:] = judged
