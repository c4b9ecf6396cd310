// An artifact that was read and tested once, for the Contexts to come.
#pragma once

#include "artifact/archive.h"
#include "model/model.h"

#include <mutex>

namespace equistride {

class TestedModel {
public:
    using Bytes = std::shared_ptr<const std::string>;

    /// Raises c10::ValueError as Model::from_content() does.
    TestedModel(Bytes bytes, const std::string &name) : TestedModel(bytes, inspect_archive(bytes, name), name) {}
    /// The same of bytes that were inspected already.
    TestedModel(Bytes bytes, const ArchiveInfo &info, const std::string &name)
        : bytes_(std::move(bytes)), name_(name), model_(Model::from_archive(bytes_, info, name)),
          metadata_(model_->metadata()) {}

    const Metadata &metadata() const { return metadata_; }

    /// A model for a Context, which changes it: the one that was tested, or where another Context has that, the same
    /// read again.
    std::unique_ptr<Model> take() {
        const std::lock_guard<std::mutex> alone(taking_);
        return model_ ? std::move(model_) : Model::from_content(bytes_, name_, /*verify=*/false);
    }

private:
    Bytes bytes_;
    std::string name_;
    std::unique_ptr<Model> model_; // until a Context takes it
    Metadata metadata_;
    std::mutex taking_;
};

} // namespace equistride
