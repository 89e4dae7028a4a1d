// Parameters of the engine's methods: their types, and the schemas that check types and ranges before any work starts. What depends on the
// model the addon checks.

import { z } from "zod";
import { takes } from "./check.js";
import { RuntimeConfigSchema } from "./schemas/runtime.js";
import type { LoadProgress } from "./types.js";

/** A message of a conversation. */
export type Message = {
  /** Name of its author, for chat templates that show it. */
  name?: string | null | undefined;
} & (
  | {
      /** Author's part; `developer` is another name for `system`. */
      role: "system" | "developer" | "user";
      /** Text of the message. */
      content: string;
    }
  | {
      /** Author's part. */
      role: "assistant";
      /** Text of the message; empty if it is left out. */
      content?: string | null | undefined;
    }
);

/** The model that is meant. */
export interface ModelParams {
  /** Name of a loaded model. Default: the only one. */
  model?: string | null | undefined;
}

/** Parameters of an answer: a `prompt` or `messages`, and how to go on. */
export interface GenerateParams extends ModelParams {
  /** Text or token ids to go on from. */
  prompt?: string | number[] | null | undefined;
  /** Conversation to answer, in the place of a prompt. */
  messages?: Message[] | null | undefined;
  /** Variables of the chat template. */
  chatTemplateKwargs?: Record<string, z.core.util.JSONType> | null | undefined;
  /** Whether to add the tokens that begin a text. Default: true for a text prompt, false for messages. */
  addSpecialTokens?: boolean | null | undefined;
  /** Most tokens of the answer, from 1. Default: as many as the context holds. */
  maxTokens?: number | null | undefined;
  /** Randomness, 0 to 2; 0 takes the most likely token. Default: the model's own. */
  temperature?: number | null | undefined;
  /** Probability that the tokens which are kept reach together, 0 to 1. Default: the model's own. */
  topP?: number | null | undefined;
  /** Number of most likely tokens that are kept; 0 keeps all. Default: the model's own. */
  topK?: number | null | undefined;
  /** Least probability of a token that is kept, as a share of the largest, 0 to 1. Default: the model's own. */
  minP?: number | null | undefined;
  /** Divisor for logits of tokens of prompt and answer, 0.01 to 10; 1 for none. Default: the model's own. */
  repetitionPenalty?: number | null | undefined;
  /** Reduction of the logits of tokens that the answer has, once each, -2 to 2. Default: the model's own. */
  presencePenalty?: number | null | undefined;
  /** Reduction of the logits of tokens by their count in the answer, -2 to 2. Default: the model's own. */
  frequencyPenalty?: number | null | undefined;
  /** Seed of the randomness, from 0: the same seed and request give the same answer. Default: another one each time. */
  seed?: number | null | undefined;
  /** Additions to logits, -100 to 100, by token id. */
  logitBias?: Record<string, number> | null | undefined;
  /** Text or texts that end the answer and are no part of it. */
  stopSequences?: string | string[] | null | undefined;
  /** Whether to go on at the tokens that end a text. Default: false. */
  ignoreEos?: boolean | null | undefined;
  /** True for the log-probability of each token, a number from 0 to 20 for as many alternatives too. Default: false. */
  logprobs?: boolean | number | null | undefined;
}

/** What ends an answer before it ends by itself. */
export interface GenerateOptions {
  /** Cancels the answer: an error of code `Cancelled`. */
  signal?: AbortSignal | null | undefined;
  /** Milliseconds that the answer may take, from the first `next()`; then there is an error of code `Timeout`. Default: no limit. */
  timeoutMs?: number | null | undefined;
}

/** The model to load. */
export interface LoadParams {
  /** Folder, or id of the Hugging Face hub. Default: the bundled model. */
  model?: string | null | undefined;
  /** Name to call it by. Default: what was given as `model`. */
  name?: string | null | undefined;
  /** Jinja file in the place of the model's own chat template. */
  chatTemplate?: string | null | undefined;
}

/** What is told while a model is loaded, and what stops that. */
export interface LoadOptions {
  /** Receives how far the loading is. */
  onProgress?: ((progress: LoadProgress) => void) | null | undefined;
  /** Stops the waiting; what is loaded then is unloaded again. */
  signal?: AbortSignal | null | undefined;
}

/** A text to encode. */
export interface TokenizeParams extends ModelParams {
  /** Text to encode. */
  text: string;
  /** Whether to add the tokens that begin a text. Default: true. */
  addSpecialTokens?: boolean | null | undefined;
}

/** Token ids to decode. */
export interface DetokenizeParams extends ModelParams {
  /** Token ids to decode. */
  tokens: number[];
}

const tokenId = z.number().int().min(0).max(0xffff_ffff);
const tokenIds = z.array(tokenId).register(takes, { phrase: "a list of token ids" });
const count = z.number().int().max(0xffff_ffff);
const share = z.number().min(0).max(1);
const penalty = z.number().min(-2).max(2);
const name = z.string().min(1);
/** The longest time that a timer takes. */
const milliseconds = z.number().int().min(1).max(0x7fff_ffff);
const signal = z.custom<AbortSignal>((value) => value instanceof AbortSignal).register(takes, { phrase: "an AbortSignal" });
const progress = z.custom<(progress: LoadProgress) => void>((value) => typeof value === "function").register(takes, { phrase: "a function" });

const MessageSchema = z
  .strictObject({
    role: z.enum(["system", "developer", "user", "assistant"]),
    content: z.string().nullish(),
    name: z.string().nullish(),
  })
  .register(takes, { phrase: "an object with a role and a content" });
const complete = MessageSchema.refine(({ role, content }) => role === "assistant" || typeof content === "string", { path: ["content"] });

export const GenerateParamsSchema = z
  .strictObject({
    model: name.optional(),
    prompt: z.union([z.string(), tokenIds]).register(takes, { phrase: "text or a list of token ids" }).optional(),
    messages: z
      .array(complete as unknown as z.ZodType<Message, Message>)
      .min(1)
      .register(takes, { phrase: "a list of messages, each with a role and a content" })
      .optional(),
    chatTemplateKwargs: z
      .record(z.string(), z.json().register(takes, { phrase: "a value that JSON has" }))
      .register(takes, { phrase: "an object with variables of the chat template" })
      .optional(),
    addSpecialTokens: z.boolean().optional(),
    maxTokens: count.min(1).optional(),
    temperature: z.number().min(0).max(2).optional(),
    topP: share.optional(),
    topK: count.min(0).optional(),
    minP: share.optional(),
    repetitionPenalty: z.number().min(0.01).max(10).optional(),
    presencePenalty: penalty.optional(),
    frequencyPenalty: penalty.optional(),
    seed: z.number().int().min(0).optional(),
    logitBias: z
      .record(z.string().regex(/^\d+$/), z.number().min(-100).max(100))
      .register(takes, { phrase: "an object that gives token ids a number from -100 to 100" })
      .optional(),
    stopSequences: z.union([z.string(), z.array(z.string())]).register(takes, { phrase: "text or a list of texts" }).optional(),
    ignoreEos: z.boolean().optional(),
    logprobs: z
      .union([z.boolean(), z.number().int().min(0).max(20)])
      .register(takes, { phrase: "true, false or a number of alternatives from 0 to 20" })
      .optional(),
  })
  .register(takes, { phrase: 'an object, such as { prompt: "Once" }' });

export const GenerateOptionsSchema = z
  .strictObject({ signal: signal.optional(), timeoutMs: milliseconds.optional() })
  .register(takes, { phrase: "an object, such as { timeoutMs: 1000 }" });

export const LoadParamsSchema = z
  .strictObject({ model: name.optional(), name: name.optional(), chatTemplate: name.optional() })
  .register(takes, { phrase: 'an object, such as { model: "a folder" }' });

export const LoadOptionsSchema = z
  .strictObject({ onProgress: progress.optional(), signal: signal.optional() })
  .register(takes, { phrase: "an object, such as { onProgress: console.log }" });

export const ModelParamsSchema = z.strictObject({ model: name.optional() }).register(takes, { phrase: 'an object, such as { model: "a name" }' });

export const TokenizeParamsSchema = ModelParamsSchema.extend({ text: z.string(), addSpecialTokens: z.boolean().optional() }).register(
  takes,
  { phrase: 'an object, such as { text: "Once" }' },
);

export const DetokenizeParamsSchema = ModelParamsSchema.extend({ tokens: tokenIds }).register(takes, { phrase: "an object, such as { tokens: [1, 2] }" });

takes.add(RuntimeConfigSchema, { phrase: 'an object, such as { engine: { device: "cpu" } }' });
