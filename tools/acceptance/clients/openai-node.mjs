// The official client in Node.js: tools, structured outputs, Responses, embeddings.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ASK_BOTH, ASK_HELLO, ASK_JSON, ASK_MORE, ASK_THINK, ASK_WEATHER, EMBEDDER, FOUR, HELLO, MODEL, MORE, REPORT, THOUGHT, TOOL, V1, WEATHER, test, user } from "./cases.mjs";

const client = new OpenAI({ baseURL: V1, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const City = z.object({ city: z.string(), celsius: z.number().int() });
const chat = (messages, more = {}) => client.chat.completions.create({ model: MODEL, messages, ...more });

await test("models are listed", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert(ids.includes(MODEL), ids);
});

await test("an answer is the same whole and streamed", async () => {
  assert.equal((await chat([user(ASK_HELLO)])).choices[0].message.content, HELLO);
  let text = "";
  for await (const chunk of await chat([user(ASK_HELLO)], { stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, HELLO);
});

await test("a second turn echoes the answer's object", async () => {
  const { message } = (await chat([user(ASK_HELLO)])).choices[0];
  const second = await chat([user(ASK_HELLO), message, user(ASK_MORE)]);
  assert.equal(second.choices[0].message.content, MORE);
});

await test("a tool is called and its result answered", async () => {
  const messages = [user(ASK_WEATHER)];
  const { message, finish_reason } = (await chat(messages, { tools: [TOOL] })).choices[0];
  assert.equal(finish_reason, "tool_calls");
  const [call] = message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  messages.push(message, { role: "tool", tool_call_id: call.id, content: "sunny" });
  const final = (await chat(messages, { tools: [TOOL] })).choices[0];
  assert.equal(final.message.content, REPORT);
  messages.push(final.message, user(ASK_MORE));
  assert.equal((await chat(messages, { tools: [TOOL] })).choices[0].message.content, MORE);
});

await test("the stream helper puts calls together", async () => {
  const stream = client.chat.completions.stream({ model: MODEL, messages: [user(ASK_BOTH)], tools: [TOOL] });
  const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.deepEqual(message.tool_calls.map((call) => JSON.parse(call.function.arguments).city), ["Paris", "Rome"]);
});

await test("runTools runs a function and gets the last answer", async () => {
  const asked = [];
  const tool = { ...TOOL, function: { ...TOOL.function, parse: JSON.parse, function: ({ city }) => (asked.push(city), "sunny") } };
  const run = client.chat.completions.runTools({ model: MODEL, messages: [user(ASK_WEATHER)], tools: [tool] });
  assert.equal(await run.finalContent(), REPORT);
  assert.deepEqual(asked, ["Paris"]);
});

await test("parse gives objects of a schema", async () => {
  for (const question of [ASK_JSON, ASK_HELLO]) {
    const answer = await client.chat.completions.parse({
      model: MODEL,
      messages: [user(question)],
      response_format: zodResponseFormat(City, "city"),
      max_tokens: 200,
    });
    City.parse(answer.choices[0].message.parsed);
  }
});

await test("strict tools are forced", async () => {
  const answer = await client.chat.completions.parse({
    model: MODEL,
    messages: [user(ASK_HELLO)],
    tools: [zodFunction({ name: "city", parameters: City })],
    tool_choice: "required",
    max_tokens: 200,
  });
  City.parse(answer.choices[0].message.tool_calls[0].function.parsed_arguments);
});

await test("reasoning is apart", async () => {
  const { message } = (await chat([user(ASK_THINK)])).choices[0];
  assert.equal(message.content.trim(), FOUR);
  assert.equal(message.reasoning_content.trim(), THOUGHT);
  assert.equal((await chat([user(ASK_THINK), message, user(ASK_MORE)])).choices[0].message.content, MORE);
});

await test("completions continue texts", async () => {
  const answer = await client.completions.create({ model: MODEL, prompt: "<|answer:hello|>", max_tokens: 50 });
  assert.equal(answer.choices[0].text, HELLO);
});

await test("Responses answer, whole and streamed", async () => {
  const answer = await client.responses.create({ model: MODEL, input: ASK_HELLO });
  assert.equal(answer.output_text, HELLO);
  const stream = client.responses.stream({ model: MODEL, input: ASK_HELLO });
  let text = "";
  for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
  assert.equal(text, HELLO);
  assert.equal((await stream.finalResponse()).output_text, HELLO);
});

await test("Responses call tools and take their items back", async () => {
  const tools = [{ type: "function", name: "get_weather", parameters: WEATHER }];
  const input = [user(ASK_WEATHER)];
  const answer = await client.responses.create({ model: MODEL, input, tools });
  const call = answer.output.find((item) => item.type === "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { city: "Paris" });
  input.push(...answer.output, { type: "function_call_output", call_id: call.call_id, output: "sunny" });
  const final = await client.responses.create({ model: MODEL, input, tools });
  assert.equal(final.output_text, REPORT);
});

await test("Responses parse objects of a schema", async () => {
  const answer = await client.responses.parse({
    model: MODEL,
    input: ASK_JSON,
    text: { format: zodTextFormat(City, "city") },
    max_output_tokens: 200,
  });
  City.parse(answer.output_parsed);
});

await test("embeddings are of length one", async () => {
  const { data } = await client.embeddings.create({ model: EMBEDDER, input: ["a cat", "a dog"] });
  assert.equal(data.length, 2);
  for (const { embedding } of data) assert(Math.abs(Math.hypot(...embedding) - 1) < 1e-3);
});

await test("errors are the package's own", async () => {
  await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages: [user("x")] }), OpenAI.NotFoundError);
  await assert.rejects(chat([user("x")], { temperature: -1 }), OpenAI.BadRequestError);
});
