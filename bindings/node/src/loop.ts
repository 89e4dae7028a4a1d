// The event loop's side of delivery: the engine wakes it once a step, and it takes what has come for everybody who waits.

import { addon } from "./native.js";

/** Receiver of tokens that waits for them. */
export interface Waiter {
  /** Gives what has come to those who asked for it. */
  deliver(): void;
}

/** Waiters of this environment, and what wakes them. */
class Loop {
  readonly environment = new addon.Environment(() => this.#wake());
  readonly #waiting = new Set<Waiter>();
  /** Keeps the process while somebody waits: the addon alone does not, so that an engine which was left behind does not either. */
  readonly #alive = setInterval(() => {}, 0x7fff_ffff).unref();

  wait(waiter: Waiter): void {
    if (this.#waiting.size === 0) this.#alive.ref();
    this.#waiting.add(waiter);
  }

  leave(waiter: Waiter): void {
    if (this.#waiting.delete(waiter) && this.#waiting.size === 0) this.#alive.unref();
  }

  #wake(): void {
    this.environment.rearm();
    for (const waiter of [...this.#waiting]) waiter.deliver();
  }
}

export const loop = new Loop();
