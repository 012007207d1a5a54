// SPDX-License-Identifier: MIT
// One copy of a model on the GPU, however many threads open sessions.
#include <pthread.h>
#include <stdlib.h>

#include "runtime/cuda/cuda.h"
#include "runtime/engine/model.h"

struct bnt_upload {
    pthread_mutex_t lock;
    struct bnt_cuda_model *cuda; // NULL before the first session
};

struct bnt_upload *bnt_upload_new(void)
{
    struct bnt_upload *upload = calloc(1, sizeof *upload);
    if (upload)
        (void)pthread_mutex_init(&upload->lock, NULL);
    return upload;
}

void bnt_upload_free(struct bnt_upload *upload)
{
    if (!upload)
        return;
    bnt_cuda_model_close(upload->cuda);
    (void)pthread_mutex_destroy(&upload->lock);
    free(upload);
}

enum bnt_status bnt_upload_get(const struct bnt_model *model, const struct bnt_cuda_model **cuda,
                               struct bnt_error *err)
{
    struct bnt_upload *upload = model->upload;
    enum bnt_status status = BNT_OK;
    (void)pthread_mutex_lock(&upload->lock);
    if (!upload->cuda)
        status = bnt_cuda_device_count(err) > 0
                     ? bnt_cuda_model_open(&model->view, 0, &upload->cuda, err)
                     : BNT_ERR_DEVICE;
    *cuda = upload->cuda;
    (void)pthread_mutex_unlock(&upload->lock);
    return status;
}
