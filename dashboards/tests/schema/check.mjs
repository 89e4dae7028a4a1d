// Checks the dashboards against the types that Grafana publishes for them: of a dashboard, of each kind of panel, of a variable.
//
//   npm ci --ignore-scripts && npm run check

import { readFileSync } from "node:fs";
import Ajv from "ajv";
import { createGenerator } from "ts-json-schema-generator";

const TYPES = new URL("node_modules/@grafana/schema/dist/types/", import.meta.url).pathname;

/** A check of values against a type of one of Grafana's files. */
function checkOf(file, type) {
  const config = { path: `${TYPES}${file}`, type, skipTypeCheck: true, topRef: true };
  const schema = createGenerator(config).createSchema(type);
  return new Ajv({ allErrors: true, strict: false }).compile(schema);
}

const panelFile = (kind) => `raw/composable/${kind}/panelcfg/x/types.gen.d.ts`;
const KINDS = ["timeseries", "stat", "heatmap"];
const dashboardFile = "raw/dashboard/x/types.gen.d.ts";
const dashboards = checkOf(dashboardFile, "Dashboard");
const panels = checkOf(dashboardFile, "Panel");
const rows = checkOf(dashboardFile, "RowPanel");
const variables = checkOf(dashboardFile, "VariableModel");
const options = Object.fromEntries(KINDS.map((kind) => [kind, checkOf(panelFile(kind), "Options")]));
const lines = checkOf(panelFile("timeseries"), "FieldConfig");

/** What is wrong with a dashboard, as lines. */
function problems(board) {
  const found = [];
  const check = (name, checked, value) => {
    if (checked(value)) return;
    for (const { instancePath, message, params } of checked.errors) {
      found.push(`${name}${instancePath}: ${message} ${JSON.stringify(params)}`);
    }
  };
  check("dashboard", dashboards, board);
  for (const panel of board.panels) {
    if (panel.type === "row") {
      check(panel.title, rows, panel);
      continue;
    }
    check(panel.title, panels, panel);
    if (!(panel.type in options)) found.push(`${panel.title}: no panel of the kind ${panel.type} is checked`);
    else check(`${panel.title}, options`, options[panel.type], panel.options);
    if (panel.type === "timeseries") check(`${panel.title}, lines`, lines, panel.fieldConfig.defaults.custom);
  }
  for (const variable of board.templating.list) check(`$${variable.name}`, variables, variable);
  return found;
}

/** Changes of a dashboard that must be found. */
const PLANTED = {
  "a place without a width": (panel) => delete panel.gridPos.w,
  "a style that there is not": (panel) => (panel.fieldConfig.defaults.custom.drawStyle = "curves"),
  "no legend": (panel) => delete panel.options.legend,
  "no kind": (panel) => delete panel.type,
};

let failed = 0;
for (const name of ["serving.json", "metal-optimizations.json"]) {
  const board = JSON.parse(readFileSync(new URL(`../../${name}`, import.meta.url), "utf8"));
  for (const problem of problems(board)) {
    console.log(`${name}: ${problem}`);
    failed += 1;
  }
  for (const [defect, plant] of Object.entries(PLANTED)) {
    const defective = structuredClone(board);
    plant(defective.panels.find((panel) => panel.type === "timeseries"));
    if (problems(defective).length > 0) continue;
    console.log(`${name}: ${defect} is not found`);
    failed += 1;
  }
}
if (failed === 0) console.log("both dashboards are what Grafana's types say");
process.exitCode = failed === 0 ? 0 : 1;
