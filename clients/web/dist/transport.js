// Requests to the service, with retries within a time limit.
import { HandsellError, makeNoAnswer, readError } from "./errors.js";
import { TokenCache } from "./tokens.js";
const FIRST_WAIT_MS = 200;
export class Transport {
    #service;
    #tokens;
    #timeoutMs;
    #retries;
    constructor(options) {
        this.#service = options.service.replace(/\/+$/, "");
        this.#tokens = new TokenCache(options.token);
        this.#timeoutMs = options.timeoutMs ?? 10_000;
        this.#retries = options.retries ?? 2;
    }
    /** Return the answer; throws HandsellError. */
    async send(attempt) {
        const ends = Date.now() + this.#timeoutMs;
        for (let failures = 1;; failures++) {
            try {
                return await this.sendOnce(attempt, Math.max(ends - Date.now(), 1));
            }
            catch (error) {
                if (!(error instanceof HandsellError) || !error.isTemporary || failures > this.#retries)
                    throw error;
                const waitMs = Math.max(error.retryAfterMs, drawWait(failures, FIRST_WAIT_MS, 5_000));
                if (Date.now() + waitMs >= ends)
                    throw error;
                await new Promise((resolve) => setTimeout(resolve, waitMs));
            }
        }
    }
    /** Send once, and again with another token if the service refuses the first. */
    async sendOnce(attempt, timeoutMs = this.#timeoutMs) {
        const place = `${attempt.method} ${attempt.path}`;
        for (let isLast = false;; isLast = true) {
            const response = await this.#fetch(place, attempt, timeoutMs);
            if (response.ok)
                return await this.#read(place, response);
            const error = await readError(place, response);
            if (error.status !== 401 || isLast)
                throw error;
            this.#tokens.refuse();
        }
    }
    async #fetch(place, attempt, timeoutMs) {
        try {
            const token = await this.#tokens.get();
            return await fetch(this.#service + attempt.path + writeQuery(attempt.query), {
                method: attempt.method,
                headers: {
                    ...(attempt.body && { "content-type": "application/json" }),
                    ...(token && { authorization: `Bearer ${token}` }),
                },
                ...(attempt.body && { body: JSON.stringify(attempt.body) }),
                keepalive: attempt.path === "/v1/events", // delivered although the page is left
                signal: AbortSignal.timeout(timeoutMs),
            });
        }
        catch (error) {
            throw makeNoAnswer(place, error);
        }
    }
    async #read(place, response) {
        try {
            return await response.json();
        }
        catch (error) {
            throw makeNoAnswer(place, error);
        }
    }
}
/** Draw the milliseconds before the next attempt: twice as long after each failure. */
export function drawWait(failures, firstMs, longestMs) {
    return Math.min(firstMs * 2 ** Math.min(failures - 1, 20), longestMs) * (0.5 + Math.random() / 2);
}
function writeQuery(query) {
    const pairs = new URLSearchParams();
    for (const [name, value] of Object.entries(query ?? {})) {
        if (value === undefined || value === null)
            continue;
        for (const one of Array.isArray(value) ? value : [value])
            pairs.append(name, String(one));
    }
    const text = pairs.toString();
    return text && `?${text}`;
}
//# sourceMappingURL=transport.js.map