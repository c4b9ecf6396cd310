// Everything is hidden unless it is marked: what engines may call of libequistride_ops.
#pragma once

#define EQUISTRIDE_API __attribute__((visibility("default")))
