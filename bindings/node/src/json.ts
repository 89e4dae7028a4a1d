// Names and JSON on their way to the addon, which has snake_case, and back.

/** Name of an argument here, of its name in the addon: `chat_template_kwargs` is `chatTemplateKwargs`, `stop` is `stopSequences`. */
export const argumentName = (param: string): string =>
  param === "stop" ? "stopSequences" : param.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** Arguments as the addon calls them, as JSON. */
export function toNativeJson(params: Record<string, unknown>): string {
  const { stopSequences, ...others } = params;
  const renamed = Object.entries(others).map(([key, value]) => [key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]);
  return JSON.stringify({ ...Object.fromEntries(renamed), stop: stopSequences });
}

/** An answer of the addon, with the names that it has here. */
export function fromNativeJson<T>(json: string): T {
  return renamed(JSON.parse(json)) as T;
}

function renamed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(renamed);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [argumentName(key), renamed(member)]));
}
