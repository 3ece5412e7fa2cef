/* The loops of a request over items, candidates and trees. kernels/__init__.py says when they are used. */
#include "kernels.h"
#include "wide.h"
#ifndef HAS_WIDE
#define HAS_WIDE 0
#endif
#ifndef CHECKSUM
#define CHECKSUM 0 /* of the C files; setup.py defines it */
#endif

#define METHOD(NAME) {#NAME, (PyCFunction)(void (*)(void))NAME, METH_FASTCALL, NULL}

static PyMethodDef METHODS[] = {
    METHOD(sum_trees),         METHOD(order_best),  METHOD(rank_fused),    METHOD(place_sources),
    METHOD(count_occurrences), METHOD(sum_weights), METHOD(look_up),       METHOD(products),
    METHOD(select_nearest),    METHOD(weigh),       METHOD(compare_tags),  METHOD(select_nearest_coarse),
    METHOD(select_neighbors),  METHOD(select_slates), METHOD(write_sources),
    METHOD(write_values),      METHOD(write_crosses), METHOD(scale_scores), METHOD(choose_reasons),
    METHOD(pool_history),      METHOD(build_tag_vectors), METHOD(number_texts), METHOD(read_texts),
    METHOD(improve_rows),      METHOD(attend),       METHOD(embed_rows),
    METHOD(read_cells),  METHOD(read_histories), METHOD(read_seen),
    METHOD(read_weights),      METHOD(rank_weights), METHOD(write_user),
    METHOD(find_sessions),     METHOD(select_listed), METHOD(flag_available), METHOD(clear_listed),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_compiled", NULL, -1, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__compiled(void) {
    PyObject *module = PyModule_Create(&MODULE);
    if (module && PyModule_AddIntConstant(module, "wide", HAS_WIDE) < 0) Py_CLEAR(module);
    if (module && PyModule_AddIntConstant(module, "checksum", CHECKSUM) < 0) Py_CLEAR(module);
    return module;
}
