/* Numbers of texts. */
#include "texts.h"
#include <string.h>

static Py_ssize_t find_first(const uint32_t *hash, Py_ssize_t n, uint32_t wanted) {
    Py_ssize_t low = 0, high = n;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (hash[middle] < wanted) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The CRC-32 of zlib; `table` has its 256 remainders. */
static uint32_t hash_text(const uint32_t *table, const char *text, Py_ssize_t size) {
    uint32_t crc = 0xffffffffu;
    for (Py_ssize_t i = 0; i < size; i++) crc = table[(crc ^ (unsigned char)text[i]) & 0xff] ^ crc >> 8;
    return ~crc;
}

int open_texts(const Py_buffer *views, Texts *texts) {
    texts->remainders = views[0].buf, texts->hashes = views[1].buf, texts->order = views[2].buf, texts->begin = views[3].buf;
    texts->characters = views[4].buf, texts->count = length(&views[1]), texts->size = length(&views[4]);
    return length(&views[0]) == 256 && length(&views[2]) == texts->count && length(&views[3]) >= texts->count + 1;
}

int find_text(const Texts *texts, const char *text, Py_ssize_t size, int32_t *number) {
    const int32_t *begin = texts->begin;
    uint32_t wanted = hash_text(texts->remainders, text, size);
    *number = NONE;
    for (Py_ssize_t p = find_first(texts->hashes, texts->count, wanted); p < texts->count && texts->hashes[p] == wanted; p++) {
        int32_t own = texts->order[p];
        if (own < 0 || own >= texts->count || begin[own] < 0 || begin[own + 1] > texts->size) return 0;
        if (begin[own + 1] - begin[own] != size || memcmp(texts->characters + begin[own], text, (size_t)size)) continue;
        *number = own;
        break;
    }
    return 1;
}

/* number_texts(texts list, remainders (256,) u32 as i32, hashes (N,) u32 as i32, order (N,) i32, begin (N + 1,) i32,
 *              characters i8, numbers (M,) i32)
 * Returns whether all texts are valid: without it, numbers are not complete. */
PyObject *number_texts(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    if (expect(count == 7, "7 arguments") < 0 || read_arrays(args + 1, "iiiibI", v) < 0) return NULL;
    Py_ssize_t m = PyList_Size(args[0]);
    Texts known;
    int good = open_texts(v, &known) && m >= 0 && length(&v[5]) == m;
    int valid = good;
    for (Py_ssize_t i = 0; valid && i < m; i++) {
        Py_ssize_t size = 0;
        PyObject *one = PyList_GetItem(args[0], i);
        const char *text = one && PyUnicode_Check(one) ? PyUnicode_AsUTF8AndSize(one, &size) : NULL;
        valid = text && find_text(&known, text, size, (int32_t *)v[5].buf + i);
    }
    release_arrays(v, 6);
    if (m < 0) return NULL;
    PyErr_Clear();
    return expect(good, "a hash, a place and a text of each number") < 0 ? NULL : PyBool_FromLong(valid);
}

/* read_texts(begin (N + 1,) i32, characters i8, numbers (M,) i64): the texts of numbers, as a list. */
PyObject *read_texts(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[3];
    if (expect(count == 3, "3 arguments") < 0 || read_arrays(args, "ibl", v) < 0) return NULL;
    Py_ssize_t m = length(&v[2]), n = length(&v[0]) - 1;
    const int32_t *begin = v[0].buf;
    int good = 1;
    PyObject *texts = PyList_New(m);
    for (Py_ssize_t i = 0; texts && i < m; i++) {
        int64_t number = ((const int64_t *)v[2].buf)[i];
        good = number >= 0 && number < n && begin[number] >= 0 && begin[number] <= begin[number + 1] &&
               begin[number + 1] <= length(&v[1]);
        PyObject *text = good ? PyUnicode_DecodeUTF8((const char *)v[1].buf + begin[number], begin[number + 1] - begin[number],
                                                     "surrogatepass") : NULL;
        if (!text || PyList_SetItem(texts, i, text) < 0) {
            Py_CLEAR(texts);
            break;
        }
    }
    release_arrays(v, 3);
    if (!good) expect(0, "numbers of texts");
    return texts;
}
