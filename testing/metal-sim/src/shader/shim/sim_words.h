// MSL's words that C++ lacks. Address spaces are one here.
#pragma once
#define kernel static inline
#define device
#define constant const
#define threadgroup
#define thread
#define coherent
