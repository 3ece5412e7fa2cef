// Tokens of widgets: signed by the shop's server for one user, and short-lived.

/** Returns a token; `isRefused` says that the service did not take the last one, so that another is needed. */
export type TokenSource = (isRefused: boolean) => string | Promise<string>;

/** Return a source that asks the shop's server, whose answer is the token as text. */
export function fetchTokens(url: string): TokenSource {
  return async () => {
    const response = await fetch(url, { credentials: "same-origin", cache: "no-store" });
    if (!response.ok) throw new Error(`${url}: expected a token as text, got status ${response.status}`);
    return (await response.text()).trim();
  };
}

/** Remembers the token until the service refuses it. */
export class TokenCache {
  readonly #source: TokenSource | undefined;
  #token: Promise<string> | undefined;
  #isRefused = false;

  constructor(source: string | TokenSource | undefined) {
    this.#source = typeof source === "string" ? () => source : source;
  }

  /** Return the token; undefined for a client without tokens. */
  async get(): Promise<string | undefined> {
    if (!this.#source) return undefined;
    this.#token ??= Promise.resolve(this.#source(this.#isRefused));
    try {
      return await this.#token;
    } catch (error) {
      this.#token = undefined;
      throw error;
    }
  }

  /** Forget a token that the service refused; another is asked for with the next request. */
  refuse(): void {
    this.#token = undefined;
    this.#isRefused = true;
  }
}
