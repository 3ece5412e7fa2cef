// Errors of the client: an answer with problem details (RFC 9457), or none at all.
export class HandsellError extends Error {
    /** 0 without an answer */
    status;
    /** stable and meant for programs */
    code;
    /** the first wrong field, empty if none is */
    field;
    errors;
    retryAfterMs;
    constructor(place, problem, retryAfterMs = 0) {
        super(`${place}: ${problem.status || "no answer"} ${problem.code}: ${problem.detail}`);
        this.name = "HandsellError";
        this.status = problem.status;
        this.code = problem.code;
        this.errors = problem.errors ?? [];
        this.field = this.errors[0]?.field ?? "";
        this.retryAfterMs = retryAfterMs;
    }
    /** Whether the same request may succeed later. */
    get isTemporary() {
        return this.status === 0 || this.status === 429 || this.status >= 500;
    }
}
/** Return the error of an answer; one without problem details comes from a proxy, or from something else. */
export async function readError(place, response) {
    const text = await response.text().catch(() => "");
    const seconds = response.headers.get("retry-after") ?? "";
    return new HandsellError(place, readProblem(response.status, text), /^\d+$/.test(seconds) ? Number(seconds) * 1000 : 0);
}
function readProblem(status, text) {
    try {
        const problem = JSON.parse(text);
        if (problem.code && problem.detail)
            return { ...problem, status };
    }
    catch {
        // not JSON
    }
    const quoted = text.replace(/\s+/g, " ").slice(0, 200);
    return { title: "", status, code: "no_problem_details", detail: `expected an answer of handsell, got "${quoted}"` };
}
/** Return the error of a request that had no answer; browsers do not say why. */
export function makeNoAnswer(place, error) {
    const detail = `${error instanceof Error ? error.message : error}: check the address, that the service runs, and that ` +
        "access.cors_origins of its configuration lists the origin of this page";
    return new HandsellError(place, { title: "", status: 0, code: "no_answer", detail });
}
//# sourceMappingURL=errors.js.map