/* Serves an exported model without Python: prints what is found in an image file.

   detect SAVED_MODEL IMAGE INPUT NUM_DETECTIONS BOXES SCORES

   The last four are tensors of the signature `serving_default`, as `saved_model_cli show --all`
   names them: "serving_default_image_bytes:0", "StatefulPartitionedCall:4", ... */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

enum { COUNT, BOXES, SCORES, OUTPUTS };

static void stop(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) stop(what, TF_Message(status));
}

/* The place of "operation:number" in a graph. */
static TF_Output find(TF_Graph *graph, const char *name) {
  char operation[256];
  const char *colon = strrchr(name, ':');
  if (!colon || (size_t)(colon - name) >= sizeof operation) stop(name, "no name of a tensor");
  memcpy(operation, name, colon - name);
  operation[colon - name] = '\0';
  TF_Output place = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (!place.oper) stop(name, "not in the graph");
  return place;
}

static void release_string(void *data, size_t length, void *unused) {
  (void)length;
  (void)unused;
  TF_StringDealloc(data);
  free(data);
}

/* A file's content as a batch of one string. */
static TF_Tensor *read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) stop(path, "cannot be opened");
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *content = malloc(size > 0 ? size : 1);
  if (!content || fread(content, 1, size, file) != (size_t)size) stop(path, "cannot be read");
  fclose(file);
  TF_TString *string = malloc(sizeof *string);
  if (!string) stop(path, "no memory");
  TF_StringInit(string);
  TF_StringCopy(string, content, size);
  free(content);
  const int64_t batch = 1;
  return TF_NewTensor(TF_STRING, &batch, 1, string, sizeof *string, release_string, NULL);
}

int main(int count, char **arguments) {
  if (count != 7) stop(arguments[0], "SAVED_MODEL IMAGE INPUT NUM_DETECTIONS BOXES SCORES");
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph,
                                                     NULL, status);
  check(status, arguments[1]);

  TF_Output input = find(graph, arguments[3]);
  TF_Output places[OUTPUTS];
  for (int i = 0; i < OUTPUTS; ++i) places[i] = find(graph, arguments[4 + i]);
  TF_Tensor *image = read_file(arguments[2]);
  TF_Tensor *found[OUTPUTS] = {NULL};
  TF_SessionRun(session, NULL, &input, &image, 1, places, found, OUTPUTS, NULL, 0, NULL, status);
  check(status, arguments[2]);

  const int32_t detections = *(const int32_t *)TF_TensorData(found[COUNT]);
  const int32_t *boxes = TF_TensorData(found[BOXES]);
  const float *scores = TF_TensorData(found[SCORES]);
  for (int i = 0; i < detections; ++i, boxes += 4)
    printf("%d %d %d %d %.9g\n", boxes[0], boxes[1], boxes[2], boxes[3], scores[i]);

  for (int i = 0; i < OUTPUTS; ++i) TF_DeleteTensor(found[i]);
  TF_DeleteTensor(image);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
