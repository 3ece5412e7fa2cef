/* Texts by number, as five arrays of a Vocabulary. */
#ifndef HANDSELL_TEXTS_H
#define HANDSELL_TEXTS_H
#include "kernels.h"

typedef struct {
    const uint32_t *remainders, *hashes; /* of CRC-32 (256,); of the texts, ascending (N,) */
    const int32_t *order, *begin;        /* the number of each hash (N,); where each text begins (N + 1,) */
    const char *characters;
    Py_ssize_t count, size; /* N, and the number of characters */
} Texts;

/* Views of remainders i32, hashes i32, order i32, begin i32 and characters i8; returns whether they fit. */
int open_texts(const Py_buffer *views, Texts *texts);

/* The number of a text, NONE for an unknown one; returns 0 where the arrays are damaged. */
int find_text(const Texts *texts, const char *text, Py_ssize_t size, int32_t *number);
#endif
