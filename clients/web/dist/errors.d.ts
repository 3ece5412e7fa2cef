import type { FieldError, Problem } from "./models.js";
export declare class HandsellError extends Error {
    /** 0 without an answer */
    readonly status: number;
    /** stable and meant for programs */
    readonly code: string;
    /** the first wrong field, empty if none is */
    readonly field: string;
    readonly errors: FieldError[];
    readonly retryAfterMs: number;
    constructor(place: string, problem: Problem, retryAfterMs?: number);
    /** Whether the same request may succeed later. */
    get isTemporary(): boolean;
}
/** Return the error of an answer; one without problem details comes from a proxy, or from something else. */
export declare function readError(place: string, response: Response): Promise<HandsellError>;
/** Return the error of a request that had no answer; browsers do not say why. */
export declare function makeNoAnswer(place: string, error: unknown): HandsellError;
