"""What Grafana's importer and provisioning demand of a dashboard's JSON, without Grafana."""

import copy
import re

COLUMNS = 24
KINDS = {"row", "timeseries", "stat", "heatmap"}
# Of Grafana's several hundred units those that are of use here; any other text would be shown as it is after the number.
UNITS = {"none", "short", "percent", "percentunit", "s", "ms", "bytes", "Bps", "reqps", "ops", "cps", "bool"}
# Variables that Grafana itself sets.
BUILT_IN = {"__interval", "__rate_interval", "__range"}
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}


def variables_in(text):
    return set(re.findall(r"\$\{?(\w+)", text))


def problems(board):
    """All that is wrong with a dashboard, as sentences."""
    found = []
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", board.get("uid") or ""):
        found.append(f"uid {board.get('uid')!r}: Grafana takes 1 to 40 letters, digits, - and _")
    if board.get("id") is not None:
        found.append("id is of one Grafana's database: it must be null")
    if "__inputs" in board:
        found.append("__inputs cannot be provisioned: use the variable DS_PROMETHEUS")
    if not 36 <= board.get("schemaVersion", 0) <= 38:
        found.append(f"schemaVersion {board.get('schemaVersion')}: Grafana 10.0 knows up to 38")
    defined = [variable["name"] for variable in board["templating"]["list"]]
    if len(defined) != len(set(defined)):
        found.append(f"variables that come twice: {defined}")
    panels = board["panels"]
    ids = [panel.get("id") for panel in panels]
    found += [f"panel id {i!r} is none, or comes twice" for i in set(ids) if not isinstance(i, int) or ids.count(i) > 1]
    titles = [panel.get("title") for panel in panels]
    found += [f"the title {title!r} comes twice" for title in set(titles) if titles.count(title) > 1]
    for panel in panels:
        found += [f"{panel.get('title')}: {problem}" for problem in _of_panel(panel, set(defined))]
    return found + list(_overlaps(panels))


def _of_panel(panel, defined):
    if panel.get("type") not in KINDS:
        yield f"type {panel.get('type')!r}"
    if not panel.get("title"):
        yield "no title"
    if panel.get("type") == "row":
        return
    if not panel.get("description"):
        yield "no description"
    if panel.get("datasource") != SOURCE:
        yield "its data source is not the variable"
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults.get("unit", "")
    if unit not in UNITS and not unit.startswith("suffix:"):
        yield f"unit {unit!r}"
    values = [step["value"] for step in defaults["thresholds"]["steps"]]
    if values[0] is not None or values[1:] != sorted(values[1:]):
        yield f"thresholds {values}: the first has no value, the others rise"
    targets = panel.get("targets", [])
    refs = [target.get("refId") for target in targets]
    if not targets or None in refs or len(refs) != len(set(refs)):
        yield f"refIds {refs}"
    for target in targets:
        if target.get("datasource") != SOURCE:
            yield f"{target.get('refId')}: its data source is not the variable"
        unknown = variables_in(target["expr"]) - defined - BUILT_IN
        if unknown:
            yield f"{target.get('refId')}: unknown variables {sorted(unknown)}"


def _overlaps(panels):
    taken = {}
    for panel in panels:
        at = panel["gridPos"]
        if at["x"] < 0 or at["y"] < 0 or at["w"] < 1 or at["h"] < 1 or at["x"] + at["w"] > COLUMNS:
            yield f"{panel['title']}: outside of the {COLUMNS} columns"
            continue
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        under = {taken[cell] for cell in cells if cell in taken}
        if under:
            yield f"{panel['title']}: lies on {sorted(under)}"
        taken |= dict.fromkeys(cells, panel["title"])


def planted(board):
    """Copies of a dashboard with one defect each, which `problems` must find."""

    def with_defect(change):
        defective = copy.deepcopy(board)
        change(defective, next(panel for panel in defective["panels"] if panel["type"] != "row"))
        return defective

    return {
        "an id twice": with_defect(lambda b, p: p.update(id=b["panels"][-1]["id"])),
        "a title twice": with_defect(lambda b, p: p.update(title=b["panels"][-1]["title"])),
        "one panel on another": with_defect(lambda b, p: p["gridPos"].update(w=p["gridPos"]["w"] + 1)),
        "a panel too far right": with_defect(lambda b, p: p["gridPos"].update(x=COLUMNS)),
        "a unit that there is not": with_defect(lambda b, p: p["fieldConfig"]["defaults"].update(unit="tok/s")),
        "thresholds that fall": with_defect(
            lambda b, p: p["fieldConfig"]["defaults"]["thresholds"].update(steps=[{"color": "green", "value": 1}])
        ),
        "a variable that there is not": with_defect(lambda b, p: p["targets"][0].update(expr='up{job="$job"}')),
        "no refId": with_defect(lambda b, p: p["targets"][0].pop("refId")),
        "a data source by name": with_defect(lambda b, p: p.update(datasource="Prometheus")),
        "no description": with_defect(lambda b, p: p.update(description="")),
        "a kind that there is not": with_defect(lambda b, p: p.update(type="graph")),
        "no uid": with_defect(lambda b, p: b.update(uid="")),
        "a database's id": with_defect(lambda b, p: b.update(id=7)),
        "inputs": with_defect(lambda b, p: b.update(__inputs=[])),
        "a newer schema": with_defect(lambda b, p: b.update(schemaVersion=42)),
    }
