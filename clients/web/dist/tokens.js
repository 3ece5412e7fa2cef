// Tokens of widgets: signed by the shop's server for one user, and short-lived.
/** Return a source that asks the shop's server, whose answer is the token as text. */
export function fetchTokens(url) {
    return async () => {
        const response = await fetch(url, { credentials: "same-origin", cache: "no-store" });
        if (!response.ok)
            throw new Error(`${url}: expected a token as text, got status ${response.status}`);
        return (await response.text()).trim();
    };
}
/** Remembers the token until the service refuses it. */
export class TokenCache {
    #source;
    #token;
    #isRefused = false;
    constructor(source) {
        this.#source = typeof source === "string" ? () => source : source;
    }
    /** Return the token; undefined for a client without tokens. */
    async get() {
        if (!this.#source)
            return undefined;
        this.#token ??= Promise.resolve(this.#source(this.#isRefused));
        try {
            return await this.#token;
        }
        catch (error) {
            this.#token = undefined;
            throw error;
        }
    }
    /** Forget a token that the service refused; another is asked for with the next request. */
    refuse() {
        this.#token = undefined;
        this.#isRefused = true;
    }
}
//# sourceMappingURL=tokens.js.map