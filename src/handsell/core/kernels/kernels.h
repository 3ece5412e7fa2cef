#ifndef HANDSELL_KERNELS_H
#define HANDSELL_KERNELS_H
#include "arrays.h"

#define KERNEL(NAME) PyObject *NAME(PyObject *module, PyObject *const *args, Py_ssize_t count)
KERNEL(attend);
KERNEL(embed_rows);
KERNEL(sum_trees);
KERNEL(order_best);
KERNEL(rank_fused);
KERNEL(place_sources);
KERNEL(count_occurrences);
KERNEL(sum_weights);
KERNEL(look_up);
KERNEL(products);
KERNEL(select_nearest);
KERNEL(select_nearest_coarse);
KERNEL(select_neighbors);
KERNEL(weigh);
KERNEL(compare_tags);
KERNEL(select_slates);
KERNEL(write_sources);
KERNEL(write_values);
KERNEL(write_crosses);
KERNEL(scale_scores);
KERNEL(choose_reasons);
KERNEL(pool_history);
KERNEL(build_tag_vectors);
KERNEL(number_texts);
KERNEL(read_texts);
KERNEL(improve_rows);
KERNEL(read_cells);
KERNEL(read_histories);
KERNEL(read_seen);
KERNEL(read_weights);
KERNEL(rank_weights);
KERNEL(write_user);
KERNEL(find_sessions);
KERNEL(select_listed);
KERNEL(flag_available);
KERNEL(clear_listed);
#endif
