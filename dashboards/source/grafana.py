"""Grafana's JSON of dashboards: panels in rows, in the form that Grafana 10 and newer import and provision."""

from dataclasses import dataclass, field

# That of Grafana 10.0. Newer ones bring an older version up to their own; an older one would not know a newer version.
SCHEMA_VERSION = 38
DATA_SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
COLUMNS = 24
SHARES = (0.5, 0.9, 0.95, 0.99)

# Labels of the chosen models and servers, and of the servers alone, for families of the whole process.
MODEL = 'model_name=~"$model_name",instance=~"$instance"'
SERVER = 'instance=~"$instance"'


@dataclass
class Query:
    """A query of Prometheus with the name of its lines."""

    expression: str
    legend: str
    heat: bool = False

    def json(self, ref_id):
        return {
            "datasource": DATA_SOURCE,
            "editorMode": "code",
            "expr": self.expression,
            "format": "heatmap" if self.heat else "time_series",
            "legendFormat": self.legend,
            "range": True,
            "refId": ref_id,
        }


@dataclass
class Panel:
    """A panel: `description` says what it shows and what to do. `thresholds` are values at which yellow and red begin."""

    title: str
    description: str
    queries: list
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    thresholds: tuple = ()
    least: float | None = 0
    most: float | None = None
    options: dict = field(default_factory=dict)
    custom: dict = field(default_factory=dict)

    def json(self, panel_id, x, y):
        defaults = {
            "color": {"mode": "thresholds" if self.kind == "stat" else "palette-classic"},
            "custom": self.custom,
            "mappings": [],
            "thresholds": {"mode": "absolute", "steps": self._steps()},
            "unit": self.unit,
        }
        defaults |= {name: value for name, value in (("min", self.least), ("max", self.most)) if value is not None}
        return {
            "id": panel_id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATA_SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": self.options,
            "targets": [query.json(chr(ord("A") + at)) for at, query in enumerate(self.queries)],
        }

    def _steps(self):
        colors = ("green", "yellow", "red") if len(self.thresholds) == 2 else ("green", "red")
        return [{"color": color, "value": value} for color, value in zip(colors, (None, *self.thresholds))]


def lines(title, description, queries, unit="short", stacked=False, bars=False, **more):
    """Lines over time; stacked areas; or bars, for events that are rare."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 30 if stacked else 10,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if more.get("thresholds") else "off"},
    }
    options = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(title, description, queries, unit, options=options, custom=custom, **more)


def stat(title, description, query, unit="short", shows="value", width=3, **more):
    """One figure with its recent course, or a name where `shows` is that."""
    options = {
        "colorMode": "value" if shows == "value" else "none",
        "graphMode": "area" if shows == "value" else "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": shows,
        "wideLayout": True,
    }
    return Panel(title, description, [query], unit, "stat", width, 4, options=options, **more)


def heat_map(title, description, histogram, unit="short"):
    """The buckets of a histogram over time: the darker, the more of the answers of that time."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "steps": 64,
            "exponent": 0.5,
            "fill": "dark-orange",
            "scale": "exponential",
            "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    query = Query(f"sum by (le) (increase({histogram}_bucket{{{MODEL}}}[$__rate_interval]))", "{{le}}", heat=True)
    return Panel(title, description, [query], unit, "heatmap", least=None, options=options)


def rate(metric, by="model_name", labels=MODEL):
    """The rate of a counter a second; without `by`, of all together."""
    summed = f"sum by ({by}) " if by else "sum"
    return f"{summed}(rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share, histogram):
    """A percentile of the chosen models together."""
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', 'le')})"


def mean(histogram):
    return f"{rate(histogram + '_sum', '')} / {rate(histogram + '_count', '')}"


def spread(histogram):
    """Percentiles and mean of a histogram."""
    return [*(Query(quantile(share, histogram), f"p{share * 100:g}") for share in SHARES), Query(mean(histogram), "mean")]


def spread_since_start(histogram):
    """The same over all that was counted since the servers' starts, for what is too rare to have a rate."""
    buckets, total, count = (f"{histogram}_{part}{{{MODEL}}}" for part in ("bucket", "sum", "count"))
    percentiles = [Query(f"histogram_quantile({share}, sum by (le) ({buckets}))", f"p{share * 100:g}") for share in SHARES]
    return [*percentiles, Query(f"sum({total}) / sum({count})", "mean")]


def events(counter):
    """How often something happened in each interval, by model."""
    return Query(f"sum by (model_name) (increase({counter}{{{MODEL}}}[$__rate_interval]))", "{{model_name}}")


def or_zero(expression):
    """The expression, or 0 where it has no series yet."""
    return f"{expression} or vector(0)"


def dashboard(uid, title, description, rows):
    """The JSON of a dashboard; `rows` are pairs of a title and panels, which are laid out from left to right."""
    panels, y = [], 0
    for row_title, row_panels in rows:
        panels.append(_row(len(panels) + 1, row_title, y))
        y += 1
        x = height = 0
        for panel in row_panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(panel.json(len(panels) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["mlx-serving"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "id": None,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "links": [_links()],
        "annotations": {"list": [_annotations()]},
        "templating": {
            "list": [
                _data_sources(),
                _label("instance", "mlx_serving_build_info", "Server"),
                _label("model_name", f"vllm:num_requests_running{{{SERVER}}}", "Model"),
            ]
        },
        "panels": panels,
    }


def _row(panel_id, title, y):
    return {
        "id": panel_id,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
        "panels": [],
    }


def _links():
    """A menu of the other dashboards."""
    return {
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "tags": ["mlx-serving"],
        "targetBlank": False,
        "title": "mlx-serving",
        "tooltip": "",
        "type": "dashboards",
        "url": "",
    }


def _annotations():
    """Annotations that users make by hand."""
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _data_sources():
    return {
        "name": "DS_PROMETHEUS",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {"selected": True, "text": "default", "value": "default"},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _label(name, metric, label):
    """A variable of a label's values. "All" stands for those listed, not for any: others may have metrics of the same names."""
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }
